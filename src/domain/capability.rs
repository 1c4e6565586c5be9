//! Optional features of a node, told by name in `Hello`. Pure.
//!
//! Features are not versions: two nodes of one version may differ in them, and a name that is not known is ignored.

use crate::domain::{login::SecurityMode, version::Version};

/// As visiting: shows the user a choice of device profiles.
pub const PROFILE_CHOICE: &str = "profile-choice";

/// Takes announcements of certificates.
pub const TRUST_ANNOUNCE: &str = "trust-announce";

/// Serves phones whose signalling is secure.
pub const SECURE_CONFIG: &str = "secure-config";

/// Answers which of the sessions that two clusters share live on its side.
pub const SYNC_SESSIONS: &str = "sync-sessions";

/// What a cluster has told of itself. Nothing told is what an old node can: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Security mode of the cluster.
    pub security_mode: SecurityMode,
    /// [`PROFILE_CHOICE`].
    pub profile_choice: bool,
    /// [`SECURE_CONFIG`].
    pub secure_config: bool,
    /// [`TRUST_ANNOUNCE`].
    pub trust_announce: bool,
    /// [`SYNC_SESSIONS`].
    pub sync_sessions: bool,
}

impl Traits {
    /// What these names and this mode say.
    #[must_use]
    pub fn told(security_mode: SecurityMode, capabilities: &[String]) -> Self {
        let has = |name: &str| capabilities.iter().any(|told| told == name);
        Self {
            security_mode,
            profile_choice: has(PROFILE_CHOICE),
            secure_config: has(SECURE_CONFIG),
            trust_announce: has(TRUST_ANNOUNCE),
            sync_sessions: has(SYNC_SESSIONS),
        }
    }

    /// Our own: those of a node that is held back to 1.0 are those of then.
    #[must_use]
    pub fn of(security_mode: SecurityMode, newest: Version) -> Self {
        Self::told(security_mode, &names(newest))
    }

    /// Our own, where nothing holds us back.
    #[must_use]
    pub const fn ours(security_mode: SecurityMode) -> Self {
        Self {
            security_mode,
            profile_choice: true,
            secure_config: true,
            trust_announce: true,
            sync_sessions: true,
        }
    }
}

/// What we tell. A node that is held back to 1.0 behaves as one of then, which had none of them.
#[must_use]
pub fn names(newest: Version) -> Vec<String> {
    if newest == Version::V1_0 {
        return Vec::new();
    }
    [PROFILE_CHOICE, SECURE_CONFIG, TRUST_ANNOUNCE, SYNC_SESSIONS]
        .map(str::to_owned)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_tell_is_understood_and_unknown_names_are_ignored() {
        let mut told = names(Version::CURRENT);
        told.push("from-the-future".to_owned());
        let secure = SecurityMode::Secure;
        assert_eq!(Traits::told(secure, &told), Traits::ours(secure));
        assert_eq!(
            Traits::told(SecurityMode::NonSecure, &names(Version::V1_0)),
            Traits::default()
        );
    }
}
