//! What the audit calls the things that are done: `noun.verb`, one closed set. The words are a part of what each entry
//! is hashed over, so a word that was ever written stays.

use std::fmt;

/// Something that can be done to what a cluster has. A new one goes into [`Action::all`] too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A record is new.
    Add(Noun),
    /// A node noted how far the audit of another one goes.
    AuditWitness,
    /// Something was done under a claim to once-only work.
    ClaimEffect,
    /// A claim was given up.
    ClaimRelease,
    /// A claim was taken.
    ClaimTake,
    /// A certificate of a node is shown in place of the one from before.
    CertActivate,
    /// A new certificate of a node is made and told to the peers.
    CertAnnounce,
    /// An operator's word that peers have a certificate by other ways.
    CertConfirm,
    /// What is on record of a rotation is forgotten, since its node is gone for good.
    CertForget,
    /// The node's own certificates were read again.
    CertReload,
    /// A certificate from before is not a node's any more.
    CertRetire,
    /// A certificate from before is shown again.
    CertRollBack,
    /// All data was given out.
    DataExport,
    /// Many rows were put in place at once; each of them follows.
    DataImport,
    /// A copy of the database was written.
    DbBackup,
    /// A new process of a node asked for its sockets, and what came of it.
    NodeHandOver,
    /// An operator compared the words of a pairing and confirmed.
    PairingConfirm,
    /// A pairing is over, and nothing came of it.
    PairingEnd,
    /// Somebody came with a wrong proof, or after another one.
    PairingFail,
    /// An invitation was made.
    PairingInvite,
    /// An invitation was used: by somebody here, or by another cluster.
    PairingJoin,
    /// A user's lock, or the wrong PINs counted so far, ended by an operator.
    PinUnlock,
    /// A record is gone.
    Remove(Noun),
    /// An operator's word that a peer need not be told of an end.
    SessionDrop,
    /// A login, whatever came of it.
    SessionLogin,
    /// The end of a session, whoever ended it.
    SessionLogout,
    /// An operator's word that a peer is told again of ends that it refused.
    SessionRetry,
    /// A record was changed.
    Set(Noun),
    /// A peer told which certificates one of its identities has.
    TrustAnnounce,
}

/// Records that are added, changed and removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    /// Application users.
    Application,
    /// Base devices.
    Base,
    /// Call-control groups.
    CallGroup,
    /// Other clusters.
    Cluster,
    /// Phones.
    Device,
    /// Geolocations.
    Geolocation,
    /// Parameters: one that is reset has its default again.
    Param,
    /// Phone services.
    PhoneService,
    /// Credential policies.
    Policy,
    /// Device pools.
    Pool,
    /// Device profiles.
    Profile,
    /// What is accepted from another cluster: given and taken back, never changed.
    Trust,
    /// Users.
    User,
}

impl Noun {
    const ALL: [Self; 13] = [
        Self::Application,
        Self::CallGroup,
        Self::Geolocation,
        Self::PhoneService,
        Self::Base,
        Self::Cluster,
        Self::Device,
        Self::Param,
        Self::Policy,
        Self::Pool,
        Self::Profile,
        Self::Trust,
        Self::User,
    ];

    /// Added, changed, removed.
    const fn words(self) -> [&'static str; 3] {
        match self {
            Self::Application => ["application.add", "application.set", "application.remove"],
            Self::CallGroup => ["call-group.add", "call-group.set", "call-group.remove"],
            Self::Geolocation => ["geolocation.add", "geolocation.set", "geolocation.remove"],
            Self::PhoneService => ["service.add", "service.set", "service.remove"],
            Self::Base => ["base.add", "base.set", "base.remove"],
            Self::Cluster => ["cluster.add", "cluster.set", "cluster.remove"],
            Self::Device => ["device.add", "device.set", "device.remove"],
            Self::Param => ["param.set", "param.set", "param.reset"],
            Self::Policy => ["policy.add", "policy.set", "policy.remove"],
            Self::Pool => ["pool.add", "pool.set", "pool.remove"],
            Self::Profile => ["profile.add", "profile.set", "profile.remove"],
            Self::Trust => ["trust.add", "trust.add", "trust.remove"],
            Self::User => ["user.add", "user.set", "user.remove"],
        }
    }
}

impl Action {
    /// The word in the audit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add(noun) => {
                let [add, _, _] = noun.words();
                add
            }
            Self::AuditWitness => "audit.witness",
            Self::ClaimEffect => "claim.effect",
            Self::ClaimRelease => "claim.release",
            Self::ClaimTake => "claim.take",
            Self::CertActivate => "cert.activate",
            Self::CertAnnounce => "cert.announce",
            Self::CertConfirm => "cert.confirm",
            Self::CertForget => "cert.forget",
            Self::CertReload => "cert.reload",
            Self::CertRetire => "cert.retire",
            Self::CertRollBack => "cert.roll-back",
            Self::DataExport => "data.export",
            Self::DataImport => "data.import",
            Self::DbBackup => "db.backup",
            Self::NodeHandOver => "node.hand-over",
            Self::PairingConfirm => "pairing.confirm",
            Self::PairingEnd => "pairing.end",
            Self::PairingFail => "pairing.fail",
            Self::PairingInvite => "pairing.invite",
            Self::PairingJoin => "pairing.join",
            Self::PinUnlock => "pin.unlock",
            Self::Remove(noun) => {
                let [_, _, remove] = noun.words();
                remove
            }
            Self::SessionDrop => "session.drop",
            Self::SessionLogin => "session.login",
            Self::SessionLogout => "session.logout",
            Self::SessionRetry => "session.retry",
            Self::Set(noun) => {
                let [_, set, _] = noun.words();
                set
            }
            Self::TrustAnnounce => "trust.announce",
        }
    }

    /// What is done to a record, by its word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        let nouns = Noun::ALL.into_iter();
        nouns
            .flat_map(|noun| [Self::Add(noun), Self::Set(noun), Self::Remove(noun)])
            .find(|action| action.as_str() == word)
    }

    /// Every word that is ever written, in their order.
    #[must_use]
    pub fn all() -> Vec<&'static str> {
        let alone = [
            Self::AuditWitness,
            Self::ClaimEffect,
            Self::ClaimRelease,
            Self::ClaimTake,
            Self::CertActivate,
            Self::CertAnnounce,
            Self::CertConfirm,
            Self::CertForget,
            Self::CertReload,
            Self::CertRetire,
            Self::CertRollBack,
            Self::DataExport,
            Self::DataImport,
            Self::DbBackup,
            Self::NodeHandOver,
            Self::PairingConfirm,
            Self::PairingEnd,
            Self::PairingFail,
            Self::PairingInvite,
            Self::PairingJoin,
            Self::PinUnlock,
            Self::SessionDrop,
            Self::SessionLogin,
            Self::SessionLogout,
            Self::SessionRetry,
            Self::TrustAnnounce,
        ];
        let nouns = Noun::ALL.into_iter().flat_map(Noun::words);
        let mut all: Vec<_> = alone.into_iter().map(Self::as_str).chain(nouns).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_noun_and_a_verb() {
        let all = Action::all();
        for word in &all {
            let (noun, verb) = word.split_once('.').unwrap();
            let plain = |text: &str| {
                !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            };
            assert!(plain(noun) && plain(verb), "{word}");
        }
        assert!(all.contains(&"param.reset") && all.contains(&"session.login"));
        let mut once = all.clone();
        once.dedup();
        assert_eq!(once, all);
    }
}
