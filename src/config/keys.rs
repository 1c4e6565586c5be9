//! The one list of what a configuration file may hold: name, kind, range, default, and why it is so.
//!
//! The check reads defaults and ranges from here; the example file and `docs/config.md` are rendered from here.

use std::time::Duration;

use crate::config::units::show_duration;

/// A section of the file.
#[derive(Debug)]
pub struct Section {
    /// Its name; empty for the keys at the top of the file.
    pub name: &'static str,
    /// What it is about: one or two sentences.
    pub about: &'static str,
}

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// The full name, for example `federation.heartbeat`.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What holds when the file doesn't give it.
    pub preset: Preset,
    /// What it does: full sentences.
    pub meaning: &'static str,
    /// Why the preset is what it is: the end of a sentence that begins with "because".
    pub why: &'static str,
    /// What a change needs.
    pub change: Change,
}

/// What a key may hold.
#[derive(Debug)]
pub enum Kind {
    /// Addresses that others can dial.
    Addresses,
    /// The name of an entry of a key store.
    Alias,
    /// An IP address and a port to listen on.
    Address,
    /// The same, or `off`.
    AddressOrOff,
    /// A cluster ID.
    ClusterId,
    /// A whole number from the first to the second.
    Count(u32, u32),
    /// A length of time from the first to the second.
    Duration(Duration, Duration),
    /// Names of Unix groups.
    Groups,
    /// A node's name.
    Node,
    /// A path of a file.
    Path,
    /// Where the data are.
    StoreUrl,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// What holds when the file is silent.
#[derive(Debug)]
pub enum Preset {
    /// This value, written as in the file.
    Is(&'static str),
    /// Something that depends on other things.
    Otherwise {
        /// What, in words.
        text: &'static str,
        /// A value such as one might write.
        sample: &'static str,
    },
    /// The file must give it.
    Required {
        /// A value such as one might write.
        sample: &'static str,
    },
}

/// What it takes for a change to have an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node must be started anew.
    Restart,
    /// For another path a start; the file behind the path is read again on `SIGHUP`.
    Reread,
}

impl Change {
    /// The rule in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Restart => "no, it needs a restart",
            Self::Reread => {
                "the content of the file does: `SIGHUP` reads it again; another path needs a restart"
            }
        }
    }
}

impl Kind {
    /// What is allowed, in words.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            Self::Addresses => {
                "list of hosts with their ports, for example [\"emcc1.berlin.example:8444\"]"
                    .to_owned()
            }
            Self::Alias => "text, as keytool -list shows it".to_owned(),
            Self::Address => "IP address and port, for example 0.0.0.0:8444 or [::]:8444; \
                              port 0 takes any free one"
                .to_owned(),
            Self::AddressOrOff => "off, or IP address and port".to_owned(),
            Self::ClusterId => "1 to 64 characters of A-Z a-z 0-9 . _ -".to_owned(),
            Self::Count(min, max) if min == max => format!("{min}"),
            Self::Count(min, max) => format!("{min} to {max}"),
            Self::Duration(min, max) => {
                format!("{} to {}", show_duration(*min), show_duration(*max))
            }
            Self::Groups => "list of Unix group names, for example [\"voice\"]".to_owned(),
            Self::Node => "1 to 64 characters of A-Z a-z 0-9 . _ -".to_owned(),
            Self::Path => "path, absolute or relative to the folder of this file".to_owned(),
            Self::StoreUrl => "sqlite: and a path, or sqlite::memory: for a trial".to_owned(),
            Self::Word(words) => words.join(", "),
        }
    }

    /// Whether a value of this kind may be printed when it is wrong. A URL may hold a password, and
    /// somebody may have put a key where its path belongs.
    #[must_use]
    pub const fn may_be_shown(&self) -> bool {
        !matches!(self, Self::Path | Self::StoreUrl)
    }
}

/// The key of that full name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The section that a full name belongs to; empty at the top.
#[must_use]
pub fn section_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(section, _)| section)
}

/// The name within its section.
#[must_use]
pub fn last(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

/// The full name of `name` in `section`.
#[must_use]
pub fn join(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}

/// The sections, in the order of the file.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "",
        about: "Which node this is.",
    },
    Section {
        name: "federation",
        about: "The listener for other clusters, and how we watch our links to them: gRPC over mutual TLS 1.3.",
    },
    Section {
        name: "identity",
        about: "Certificate and key that this node shows to other clusters: two files in PEM, or a key store as Tomcat has \
                it. The file with the key must be readable by its owner only.",
    },
    Section {
        name: "identity.client",
        about: "Certificate and key that this node shows when it calls other clusters, where the certificate of \
                [identity] is for servers alone.",
    },
    Section {
        name: "phone",
        about: "The listener for phones, with an identity of its own: RSA, since old phones know no elliptic \
                curves.",
    },
    Section {
        name: "admin",
        about: "The Unix socket for the command line.",
    },
    Section {
        name: "admin.groups",
        about: "Which Unix groups may do what over the socket. Root and the user that runs the daemon may do \
                everything.",
    },
    Section {
        name: "metrics",
        about: "Figures for a monitoring system (/metrics, OpenMetrics text), and whether the node lives (/healthz) \
                and can serve (/readyz). Plain HTTP, for whoever can reach it: it tells peers' names and how much is \
                going on, and nothing of users, phones or PINs.",
    },
    Section {
        name: "trust",
        about: "What is accepted from other clusters is kept in the database (`emccd trust`); here is only where more of \
                it comes from.",
    },
    Section {
        name: "store",
        about: "Where users, devices and sessions are kept.",
    },
    Section {
        name: "credentials",
        about: "How PINs are hashed. Every node of a cluster must have the same values. When a user is locked out \
                is in credential policies (`emccd policy list`).",
    },
    Section {
        name: "login",
        about: "Limits of one login.",
    },
    Section {
        name: "log",
        about: "What the node writes to standard error.",
    },
];

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

/// Every key, in the order of the file.
pub const KEYS: &[Key] = &[
    Key {
        name: "version",
        kind: Kind::Count(1, 1),
        preset: Preset::Required { sample: "1" },
        meaning: "Version of this file's format.",
        why: "",
        change: Change::Restart,
    },
    Key {
        name: "cluster-id",
        kind: Kind::ClusterId,
        preset: Preset::Required {
            sample: "\"munich\"",
        },
        meaning: "The cluster that this node belongs to, as other clusters know it. Unique in the federation; \
                  don't change it once others have added it.",
        why: "",
        change: Change::Restart,
    },
    Key {
        name: "node",
        kind: Kind::Node,
        preset: Preset::Otherwise {
            text: "the host name, or `node-1` where that is no valid name",
            sample: "\"node-1\"",
        },
        meaning: "This node's name. Unique in the cluster; it stands in logs, in the audit, and at the peers.",
        why: "a machine usually runs one node",
        change: Change::Restart,
    },
    Key {
        name: "shutdown-grace",
        kind: Kind::Duration(ms(0), ms(5 * MINUTE)),
        preset: Preset::Is("\"10s\""),
        meaning: "How long logins in progress may take to finish after the signal to stop. `0s` doesn't wait.",
        why: "no login takes longer than its deadline, and service managers kill after 90 s",
        change: Change::Restart,
    },
    Key {
        name: "federation.listen",
        kind: Kind::Address,
        preset: Preset::Is("\"0.0.0.0:8444\""),
        meaning: "Where other clusters reach this node.",
        why: "8443 is taken by the phones",
        change: Change::Restart,
    },
    Key {
        name: "federation.advertise",
        kind: Kind::Addresses,
        preset: Preset::Is("[]"),
        meaning: "Where other clusters should dial this node, the best address first. Peers learn it over \
                  their links and dial it beside what their operators gave. Empty means the address that it listens on, \
                  or nothing where it listens on all of them or for this machine alone.",
        why: "which of its addresses others can reach is known to nobody but the operator",
        change: Change::Restart,
    },
    Key {
        name: "federation.heartbeat",
        kind: Kind::Duration(ms(100), ms(MINUTE)),
        preset: Preset::Is("\"5s\""),
        meaning: "How often we ask each peer to send us a proof of life; what we send goes by what the peer asks for.",
        why: "a dead peer is then seen within ten seconds",
        change: Change::Restart,
    },
    Key {
        name: "federation.dead-after",
        kind: Kind::Duration(ms(200), ms(5 * MINUTE)),
        preset: Preset::Is("\"8s\""),
        meaning: "A link without a proof of life for this long is down. Longer than `heartbeat`.",
        why: "one late heartbeat is forgiven, a missing one is not",
        change: Change::Restart,
    },
    Key {
        name: "federation.connect-timeout",
        kind: Kind::Duration(ms(50), ms(25 * SECOND)),
        preset: Preset::Is("\"1s\""),
        meaning: "How long looking up a host name, and each TCP connection to one of its addresses, may take. TLS and the first calls have 1.5 s each besides.",
        why: "a login that waits for it must still be able to try the next address",
        change: Change::Restart,
    },
    Key {
        name: "federation.reconnect-cap",
        kind: Kind::Duration(ms(50), ms(MINUTE)),
        preset: Preset::Is("\"500ms\""),
        meaning: "The longest pause between two attempts to reach a peer.",
        why: "a healed peer is then usable within two seconds, and an attempt costs almost nothing",
        change: Change::Restart,
    },
    Key {
        name: "federation.security-mode",
        kind: Kind::Word(&["non-secure", "secure"]),
        preset: Preset::Is("\"non-secure\""),
        meaning: "Security mode of the cluster's call control, as told to peers; `secure` is mixed mode.",
        why: "it is what call control is installed with",
        change: Change::Restart,
    },
    Key {
        name: "federation.max-connections",
        kind: Kind::Count(1, 65_536),
        preset: Preset::Is("1024"),
        meaning: "How many connections of other clusters are served at a time; further ones are closed.",
        why: "each peer needs a few",
        change: Change::Restart,
    },
    Key {
        name: "identity.certificate",
        kind: Kind::Path,
        preset: Preset::Is("\"certs/federation.pem\""),
        meaning: "Certificate chain, the node's own certificate first.",
        why: "`emccd init` writes it there",
        change: Change::Reread,
    },
    Key {
        name: "identity.key",
        kind: Kind::Path,
        preset: Preset::Is("\"certs/federation.key\""),
        meaning: "Private key of the certificate, mode 0600.",
        why: "`emccd init` writes it there",
        change: Change::Reread,
    },
    Key {
        name: "identity.key-store",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none, and certificate and key are files of their own",
            sample: "\"certs/identity.p12\"",
        },
        meaning: "Key store with certificate chain and private key, PKCS#12 or JKS, mode 0600, in place of `certificate` and `key`; Tomcat's \
                  certificateKeystoreFile.",
        why: "most tools write PEM",
        change: Change::Reread,
    },
    Key {
        name: "identity.key-store-password-file",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none",
            sample: "\"certs/identity.password\"",
        },
        meaning: "File with the key store's password on its first line, mode 0600; Tomcat's \
                  certificateKeystorePasswordFile.",
        why: "PEM files need none",
        change: Change::Reread,
    },
    Key {
        name: "identity.key-password-file",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none, and the store's password opens the key",
            sample: "\"certs/identity.key-password\"",
        },
        meaning: "The same for the key, where a JKS store has another password for it; Tomcat's \
                  certificateKeyPasswordFile.",
        why: "keytool gives both the same",
        change: Change::Reread,
    },
    Key {
        name: "identity.key-alias",
        kind: Kind::Alias,
        preset: Preset::Otherwise {
            text: "none, and the key store holds one key",
            sample: "\"tomcat\"",
        },
        meaning: "Alias of the key in the key store, whatever the case; Tomcat's certificateKeyAlias.",
        why: "an alias is needed only where there are several",
        change: Change::Restart,
    },
    Key {
        name: "identity.client.certificate",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none, and the certificate of `[identity]` is shown in both directions",
            sample: "\"certs/client.pem\"",
        },
        meaning: "Certificate chain that is shown to clusters that this node calls, the node's own certificate first.",
        why: "one certificate does for both, unless an authority signs for one direction only",
        change: Change::Reread,
    },
    Key {
        name: "identity.client.key",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none",
            sample: "\"certs/client.key\"",
        },
        meaning: "Private key of that certificate, mode 0600.",
        why: "it goes with `identity.client.certificate`",
        change: Change::Reread,
    },
    Key {
        name: "identity.client.key-store",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none, and certificate and key are files of their own",
            sample: "\"certs/client.p12\"",
        },
        meaning: "Key store with the certificate chain and private key for calling, PKCS#12 or JKS, mode 0600, in place of `certificate` and `key`; Tomcat's \
                  certificateKeystoreFile.",
        why: "most tools write PEM",
        change: Change::Reread,
    },
    Key {
        name: "identity.client.key-store-password-file",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none",
            sample: "\"certs/client.password\"",
        },
        meaning: "File with the key store's password on its first line, mode 0600; Tomcat's \
                  certificateKeystorePasswordFile.",
        why: "PEM files need none",
        change: Change::Reread,
    },
    Key {
        name: "identity.client.key-password-file",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none, and the store's password opens the key",
            sample: "\"certs/client.key-password\"",
        },
        meaning: "The same for the key, where a JKS store has another password for it; Tomcat's \
                  certificateKeyPasswordFile.",
        why: "keytool gives both the same",
        change: Change::Reread,
    },
    Key {
        name: "identity.client.key-alias",
        kind: Kind::Alias,
        preset: Preset::Otherwise {
            text: "none, and the key store holds one key",
            sample: "\"tomcat\"",
        },
        meaning: "Alias of the key in the key store, whatever the case; Tomcat's certificateKeyAlias.",
        why: "an alias is needed only where there are several",
        change: Change::Restart,
    },
    Key {
        name: "phone.listen",
        kind: Kind::Address,
        preset: Preset::Is("\"0.0.0.0:8443\""),
        meaning: "Where phones reach this node with HTTPS.",
        why: "phones' service URLs usually name 8443",
        change: Change::Restart,
    },
    Key {
        name: "phone.plain-listen",
        kind: Kind::AddressOrOff,
        preset: Preset::Is("\"off\""),
        meaning: "Where phones reach this node with plain HTTP; everyone on the way can then read the PINs. It is \
                  for phones that know no TLS 1.2, in a separated voice network. The usual port is 8080.",
        why: "a PIN must not cross a network in the clear unless somebody decided so",
        change: Change::Restart,
    },
    Key {
        name: "phone.certificate",
        kind: Kind::Path,
        preset: Preset::Is("\"certs/phone.pem\""),
        meaning: "Certificate chain shown to phones.",
        why: "`emccd init` writes it there",
        change: Change::Reread,
    },
    Key {
        name: "phone.key",
        kind: Kind::Path,
        preset: Preset::Is("\"certs/phone.key\""),
        meaning: "Private key of the certificate, mode 0600. RSA-2048, unless all phones are recent.",
        why: "`emccd init` writes it there",
        change: Change::Reread,
    },
    Key {
        name: "phone.key-store",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none, and certificate and key are files of their own",
            sample: "\"certs/phone.p12\"",
        },
        meaning: "Key store with certificate chain and private key, PKCS#12 or JKS, mode 0600, in place of `certificate` and `key`; Tomcat's \
                  certificateKeystoreFile.",
        why: "most tools write PEM",
        change: Change::Reread,
    },
    Key {
        name: "phone.key-store-password-file",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none",
            sample: "\"certs/phone.password\"",
        },
        meaning: "File with the key store's password on its first line, mode 0600; Tomcat's \
                  certificateKeystorePasswordFile.",
        why: "PEM files need none",
        change: Change::Reread,
    },
    Key {
        name: "phone.key-password-file",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none, and the store's password opens the key",
            sample: "\"certs/phone.key-password\"",
        },
        meaning: "The same for the key, where a JKS store has another password for it; Tomcat's \
                  certificateKeyPasswordFile.",
        why: "keytool gives both the same",
        change: Change::Reread,
    },
    Key {
        name: "phone.key-alias",
        kind: Kind::Alias,
        preset: Preset::Otherwise {
            text: "none, and the key store holds one key",
            sample: "\"tomcat\"",
        },
        meaning: "Alias of the key in the key store, whatever the case; Tomcat's certificateKeyAlias.",
        why: "an alias is needed only where there are several",
        change: Change::Restart,
    },
    Key {
        name: "phone.max-connections",
        kind: Kind::Count(1, 65_536),
        preset: Preset::Is("1024"),
        meaning: "How many connections of phones are served at a time, on both listeners together; further ones \
                  are closed.",
        why: "phones open one for a second, when somebody presses a key",
        change: Change::Restart,
    },
    Key {
        name: "phone.max-connections-per-address",
        kind: Kind::Count(1, 65_536),
        preset: Preset::Otherwise {
            text: "half of `phone.max-connections`",
            sample: "1024",
        },
        meaning: "How many of these may come from one address, or from one IPv6 /64. Where all phones come through \
                  one proxy or one NAT, set it to `phone.max-connections`. 127.0.0.1 and ::1 are not bounded by it.",
        why: "phones of a whole site may stand behind one address, and must leave places to others",
        change: Change::Restart,
    },
    Key {
        name: "admin.socket",
        kind: Kind::Path,
        preset: Preset::Is("\"/run/emccd/admin.sock\""),
        meaning: "The Unix socket that `emccd` commands talk to; at most 107 bytes long. Without root, put it \
                  beside this file.",
        why: "it is the place for sockets of daemons",
        change: Change::Restart,
    },
    Key {
        name: "admin.groups.admin",
        kind: Kind::Groups,
        preset: Preset::Is("[]"),
        meaning: "Groups that may do everything.",
        why: "nobody gets rights unasked",
        change: Change::Restart,
    },
    Key {
        name: "admin.groups.certificates",
        kind: Kind::Groups,
        preset: Preset::Is("[]"),
        meaning: "Groups that may see everything and change certificates and trust.",
        why: "nobody gets rights unasked",
        change: Change::Restart,
    },
    Key {
        name: "admin.groups.help-desk",
        kind: Kind::Groups,
        preset: Preset::Is("[]"),
        meaning: "Groups that may see everything and end sessions.",
        why: "nobody gets rights unasked",
        change: Change::Restart,
    },
    Key {
        name: "admin.groups.viewer",
        kind: Kind::Groups,
        preset: Preset::Is("[]"),
        meaning: "Groups that may see everything and change nothing.",
        why: "nobody gets rights unasked",
        change: Change::Restart,
    },
    Key {
        name: "metrics.listen",
        kind: Kind::AddressOrOff,
        preset: Preset::Is("\"127.0.0.1:9464\""),
        meaning: "Where figures and health are served. A port that is taken keeps the node from nothing else: it \
                  says so, and tries again every second.",
        why: "9464 is what such figures are usually asked at, and the machine itself may always ask",
        change: Change::Restart,
    },
    Key {
        name: "trust.crl-folder",
        kind: Kind::Path,
        preset: Preset::Otherwise {
            text: "none",
            sample: "\"crls\"",
        },
        meaning: "A folder that is looked at every two seconds: revocation lists (PEM or DER, at most 3 MiB) that stand in \
                  it are taken in for every peer whose authority has signed them, when they are newer than those in \
                  force. What is wrong with a file is logged once.",
        why: "`emccd trust crl add` takes lists too; the folder is for a job that fetches them",
        change: Change::Restart,
    },
    Key {
        name: "store.url",
        kind: Kind::StoreUrl,
        preset: Preset::Is("\"sqlite:emccd.db\""),
        meaning: "The database, on a local disk. It is made when it doesn't exist.",
        why: "it needs nothing else, and is copied and moved with this folder",
        change: Change::Restart,
    },
    Key {
        name: "credentials.pepper-file",
        kind: Kind::Path,
        preset: Preset::Is("\"pepper.key\""),
        meaning: "A file of 32 random bytes, mode 0600, that goes into every PIN hash. All nodes of a cluster \
                  need the same one; without it no PIN can be checked any more, so keep a copy apart from the \
                  database.",
        why: "`emccd init` writes it there, outside of the database",
        change: Change::Restart,
    },
    Key {
        name: "credentials.memory-kib",
        kind: Kind::Count(8, 1_048_576),
        preset: Preset::Is("19456"),
        meaning: "Memory of one Argon2id hash, in KiB; at least 8 per lane of `parallelism`. It holds for new \
                  hashes; old ones are still checked.",
        why: "19 MiB with 2 iterations is the usual recommendation",
        change: Change::Restart,
    },
    Key {
        name: "credentials.iterations",
        kind: Kind::Count(1, 16),
        preset: Preset::Is("2"),
        meaning: "Passes of one Argon2id hash.",
        why: "19 MiB with 2 iterations is the usual recommendation",
        change: Change::Restart,
    },
    Key {
        name: "credentials.parallelism",
        kind: Kind::Count(1, 16),
        preset: Preset::Is("1"),
        meaning: "Lanes of one Argon2id hash.",
        why: "different logins already keep all cores busy",
        change: Change::Restart,
    },
    Key {
        name: "credentials.queue",
        kind: Kind::Count(1, 65_536),
        preset: Preset::Is("1024"),
        meaning: "How many PIN checks may wait for a core. Beyond that a login is answered with \
                  \"busy, try again\" at once.",
        why: "more could not be done before their deadline anyway",
        change: Change::Restart,
    },
    Key {
        name: "login.deadline",
        kind: Kind::Duration(ms(500), ms(25 * SECOND)),
        preset: Preset::Is("\"5s\""),
        meaning: "How long a login may take, from the phone's request to the answer.",
        why: "people wait about that long before they press the key again",
        change: Change::Restart,
    },
    Key {
        name: "login.find-deadline",
        kind: Kind::Duration(ms(50), ms(30 * SECOND)),
        preset: Preset::Is("\"1500ms\""),
        meaning: "How much of it the search for the user's home cluster may take. At most `deadline`.",
        why: "it leaves time for the login itself, and is many times what a healthy peer needs",
        change: Change::Restart,
    },
    Key {
        name: "log.level",
        kind: Kind::Word(&["error", "warn", "info", "debug", "trace"]),
        preset: Preset::Is("\"info\""),
        meaning: "The least severe messages that are written. No level writes PINs or keys.",
        why: "it is a few lines for each login",
        change: Change::Restart,
    },
    Key {
        name: "log.format",
        kind: Kind::Word(&["text", "json"]),
        preset: Preset::Is("\"text\""),
        meaning: "Lines for people, or one JSON object a line for programs.",
        why: "people read it first",
        change: Change::Restart,
    },
];

/// Keys that earlier versions took, and what of the whole cluster took their place: the command that sets it.
pub const MOVED: &[(&str, &str)] = &[
    (
        "login.maximum-concurrent-requests",
        "it is a parameter of the whole cluster, which `emccd param set maximum-concurrent-requests VALUE` sets",
    ),
    (
        "credentials.failures-before-lock",
        "credential policies of the whole cluster say it, which `emccd policy set default --failures-before-lock N` \
         sets",
    ),
    (
        "credentials.failure-window",
        "credential policies of the whole cluster say it, which `emccd policy set default --failure-window MINUTES` \
         sets",
    ),
    (
        "credentials.lock-duration",
        "credential policies of the whole cluster say it, which `emccd policy set default --lock-duration MINUTES` \
         sets",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::file::Value;

    #[test]
    fn names_are_unique_and_belong_to_a_section() {
        let names: BTreeSet<_> = KEYS.iter().map(|k| k.name).collect();
        assert_eq!(names.len(), KEYS.len());
        for key in KEYS {
            assert!(
                SECTIONS.iter().any(|s| s.name == section_of(key.name)),
                "{}",
                key.name
            );
            assert!(
                !SECTIONS.iter().any(|s| s.name == key.name),
                "{} is a section too",
                key.name
            );
        }
    }

    #[test]
    fn keys_stand_in_the_order_of_their_sections() {
        let place = |key: &Key| SECTIONS.iter().position(|s| s.name == section_of(key.name));
        assert!(KEYS.is_sorted_by_key(place));
    }

    #[test]
    fn every_key_says_what_it_does_and_why_its_preset_is_so() {
        for key in KEYS {
            assert!(key.meaning.ends_with('.'), "{}", key.name);
            let required = matches!(key.preset, Preset::Required { .. });
            assert_eq!(key.why.is_empty(), required, "{}", key.name);
            assert!(!key.why.ends_with('.'), "{}", key.name);
        }
    }

    #[test]
    fn what_has_moved_is_no_key_and_is_there_where_it_went() {
        for (key, instead) in MOVED {
            assert!(find(key).is_none(), "{key}");
            let command = instead.split('`').nth(1).unwrap();
            let words: Vec<_> = command.split(' ').collect();
            match words.as_slice() {
                ["emccd", "param", "set", name, _] => {
                    crate::domain::parameters::find(name).unwrap();
                }
                ["emccd", "policy", "set", "default", option, _] => {
                    let column = option.strip_prefix("--").unwrap();
                    assert_eq!(column, last(key), "{command}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn samples_and_presets_are_toml() {
        for key in KEYS {
            let (Preset::Is(literal)
            | Preset::Otherwise {
                sample: literal, ..
            }
            | Preset::Required { sample: literal }) = key.preset;
            let value = Value::from_literal(literal);
            assert!(!matches!(value, Value::Other(_)), "{}: {value}", key.name);
            assert_eq!(value.to_string(), literal, "{}", key.name);
        }
    }
}
