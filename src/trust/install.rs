//! What a certificate that is there already has to be before a node shows it: checked against its key, its chain, its
//! names, its dates and its usage, in the same way whoever brings it.

use crate::{
    clock::Timestamp,
    domain::purpose::Purpose,
    trust::{
        answer::{Answer, Mismatch, Wanted, complete},
        bundle::Direction,
        certificate::Certificate,
        folder::IdentityFolder,
        keys::{self, Key},
    },
};

/// What is brought.
#[derive(Debug)]
pub struct Brought<'a> {
    /// Certificates in any order, those of authorities among them.
    pub certificates: &'a [Certificate],
    /// The key.
    pub key: &'a Key,
    /// Names that it must carry; if there are none those that its request asked for, else those of what is configured.
    pub names: &'a [String],
    /// Whether a chain is taken that ends below its root.
    pub may_lack_issuers: bool,
}

/// Whether it can be shown for that purpose, and with which chain.
///
/// # Errors
/// Every [`Mismatch`].
pub fn check(
    folder: &IdentityFolder,
    purpose: Purpose,
    brought: &Brought<'_>,
    now: Timestamp,
) -> Result<Answer, Vec<Mismatch>> {
    let names = if brought.names.is_empty() {
        let configured = || {
            let configured = folder.configured(purpose).ok()?;
            let names = configured.leaf().names().iter();
            Some(names.map(ToString::to_string).collect())
        };
        keys::names_asked_for(brought.key)
            .or_else(configured)
            .unwrap_or_default()
    } else {
        brought.names.to_vec()
    };
    let has_client = folder.files(Purpose::FederationClient).is_some();
    let wanted = Wanted {
        public_key: &brought.key.public_key,
        names: &names,
        directions: directions(purpose, has_client),
        may_lack_issuers: brought.may_lack_issuers,
        now,
    };
    complete(brought.certificates, &wanted)
}

/// What an identity of that purpose is used as, on a node that has another one for calling, or none.
#[must_use]
pub const fn directions(purpose: Purpose, has_client: bool) -> &'static [Direction] {
    match (purpose, has_client) {
        (Purpose::Federation, false) => &[Direction::Server, Direction::Client],
        (Purpose::Federation | Purpose::Phone, _) => &[Direction::Server],
        (Purpose::FederationClient, _) => &[Direction::Client],
    }
}
