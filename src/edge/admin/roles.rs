//! Who may do what over the admin socket. Pure.
//!
//! The socket tells a caller's user id; its user's Unix groups map to roles. Root and the daemon's own user
//! are admin, so that a machine whose groups were never set up can be run.

use std::{collections::BTreeSet, fmt};

/// What an operator may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Everything.
    Admin,
    /// Identities and trust entries.
    Certificates,
    /// PINs and sessions.
    HelpDesk,
    /// Looking.
    Viewer,
}

impl Role {
    /// The four, strongest first.
    pub const ALL: [Self; 4] = [
        Self::Admin,
        Self::Certificates,
        Self::HelpDesk,
        Self::Viewer,
    ];

    /// The word for it in the configuration and in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Certificates => "certificates",
            Self::HelpDesk => "help-desk",
            Self::Viewer => "viewer",
        }
    }

    /// Whether one who has this role may do what asks for `needed`.
    #[must_use]
    pub const fn covers(self, needed: Self) -> bool {
        match (self, needed) {
            (Self::Admin, _)
            | (_, Self::Viewer)
            | (Self::Certificates, Self::Certificates)
            | (Self::HelpDesk, Self::HelpDesk) => true,
            (Self::Certificates | Self::HelpDesk | Self::Viewer, _) => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a caller can ask for, one per call of the admin service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Add a peer record with its first trust.
    AddCluster,
    /// Add a trust entry.
    AddTrust,
    /// Bring the cluster's data to what files say.
    Apply,
    /// Write a backup of the database.
    BackUp,
    /// Take an invitation back, or end a pairing.
    CancelPairing,
    /// Say that the words of a pairing are the same.
    ConfirmPairing,
    /// Explain a certificate, dialling where it is asked to.
    ExplainTrust,
    /// Give out the cluster's data, hashes of PINs among them.
    Export,
    /// Hand the node's sockets to a new process.
    HandOver,
    /// Make an invitation.
    InviteCluster,
    /// Use an invitation.
    JoinCluster,
    /// End a session.
    LogoutSession,
    /// Add or change one record.
    PutRecord,
    /// Forget that a peer has still to be told of an end.
    DropSession,
    /// Have the link to a peer tried at once.
    RefreshCluster,
    /// Read the identity files again.
    ReloadIdentities,
    /// Remove a peer.
    RemoveCluster,
    /// Remove one record.
    RemoveRecord,
    /// Remove a trust entry.
    RemoveTrust,
    /// Take the setting of a parameter back.
    ResetParameter,
    /// Have a peer told again of ends that it refused.
    RetrySession,
    /// Exchange certificates of the nodes.
    RotateCertificates,
    /// Change a peer record.
    SetCluster,
    /// Set a parameter.
    SetParameter,
    /// End a user's lock.
    UnlockPin,
    /// Look at anything.
    View,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 26] = [
        Self::AddCluster,
        Self::AddTrust,
        Self::Apply,
        Self::BackUp,
        Self::CancelPairing,
        Self::ConfirmPairing,
        Self::DropSession,
        Self::ExplainTrust,
        Self::Export,
        Self::HandOver,
        Self::InviteCluster,
        Self::JoinCluster,
        Self::LogoutSession,
        Self::PutRecord,
        Self::RefreshCluster,
        Self::ReloadIdentities,
        Self::RemoveCluster,
        Self::RemoveRecord,
        Self::RemoveTrust,
        Self::ResetParameter,
        Self::RetrySession,
        Self::RotateCertificates,
        Self::SetCluster,
        Self::SetParameter,
        Self::UnlockPin,
        Self::View,
    ];

    /// The weakest role that may do it.
    #[must_use]
    pub const fn needs(self) -> Role {
        match self {
            Self::AddCluster
            | Self::Apply
            | Self::BackUp
            | Self::CancelPairing
            | Self::ConfirmPairing
            | Self::Export
            | Self::HandOver
            | Self::InviteCluster
            | Self::JoinCluster
            | Self::PutRecord
            | Self::RemoveCluster
            | Self::RemoveRecord
            | Self::ResetParameter
            | Self::SetCluster
            | Self::SetParameter => Role::Admin,
            Self::AddTrust
            | Self::ExplainTrust
            | Self::RefreshCluster
            | Self::ReloadIdentities
            | Self::RemoveTrust
            | Self::RotateCertificates => Role::Certificates,
            Self::DropSession | Self::LogoutSession | Self::RetrySession | Self::UnlockPin => {
                Role::HelpDesk
            }
            Self::View => Role::Viewer,
        }
    }

    /// What messages call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddCluster => "cluster add",
            Self::AddTrust => "trust add",
            Self::Apply => "apply",
            Self::BackUp => "db backup",
            Self::CancelPairing => "cluster invite --cancel",
            Self::ConfirmPairing => "cluster invite --confirm",
            Self::DropSession => "session drop",
            Self::ExplainTrust => "trust explain",
            Self::Export => "export",
            Self::HandOver => "run --take-over",
            Self::InviteCluster => "cluster invite",
            Self::JoinCluster => "cluster join",
            Self::LogoutSession => "session logout",
            Self::PutRecord => "add or set a record",
            Self::RefreshCluster => "cluster refresh",
            Self::ReloadIdentities => "cert reload",
            Self::RemoveCluster => "cluster remove",
            Self::RemoveRecord => "remove a record",
            Self::RemoveTrust => "trust remove",
            Self::ResetParameter => "param reset",
            Self::RetrySession => "session retry",
            Self::RotateCertificates => "cert rotate",
            Self::SetCluster => "cluster set",
            Self::SetParameter => "param set",
            Self::UnlockPin => "pin unlock",
            Self::View => "view",
        }
    }
}

/// Which Unix groups stand for which role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Members are [`Role::Admin`].
    pub admin: Vec<String>,
    /// Members are [`Role::Certificates`].
    pub certificates: Vec<String>,
    /// Members are [`Role::HelpDesk`].
    pub help_desk: Vec<String>,
    /// Members are [`Role::Viewer`].
    pub viewer: Vec<String>,
}

impl Default for Groups {
    fn default() -> Self {
        let named = |name: &str| vec![name.to_owned()];
        Self {
            admin: named("emccd-admin"),
            certificates: named("emccd-certificates"),
            help_desk: named("emccd-help-desk"),
            viewer: named("emccd-viewer"),
        }
    }
}

impl Groups {
    /// The groups of one role.
    #[must_use]
    pub fn of(&self, role: Role) -> &[String] {
        match role {
            Role::Admin => &self.admin,
            Role::Certificates => &self.certificates,
            Role::HelpDesk => &self.help_desk,
            Role::Viewer => &self.viewer,
        }
    }
}

/// A caller as the machine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user id that the socket reports.
    pub uid: u32,
    /// The user's name; none when the machine does not know the id.
    pub name: Option<String>,
    /// Names of the user's groups.
    pub groups: BTreeSet<String>,
}

/// A caller with the roles that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    uid: u32,
    name: Option<String>,
    roles: BTreeSet<Role>,
    owns_the_node: bool,
}

impl Actor {
    /// Finds the roles of `account` on a node that runs as `daemon_uid`.
    #[must_use]
    pub fn new(account: Account, daemon_uid: u32, groups: &Groups) -> Self {
        let owns_the_node = account.uid == 0 || account.uid == daemon_uid;
        let roles = Role::ALL
            .into_iter()
            .filter(|role| {
                (owns_the_node && *role == Role::Admin)
                    || groups.of(*role).iter().any(|g| account.groups.contains(g))
            })
            .collect();
        Self {
            uid: account.uid,
            name: account.name,
            roles,
            owns_the_node,
        }
    }

    /// Whether it is root or the daemon's own user.
    #[must_use]
    pub const fn owns_the_node(&self) -> bool {
        self.owns_the_node
    }

    /// Decides whether this caller may do `action`.
    ///
    /// # Errors
    /// [`Denied`], which names the role.
    pub fn check(&self, action: Action, groups: &Groups) -> Result<(), Denied> {
        let needed = action.needs();
        if self.roles.iter().any(|role| role.covers(needed)) {
            return Ok(());
        }
        Err(Denied {
            actor: self.clone(),
            action,
            needed,
            groups: groups.of(needed).to_vec(),
        })
    }
}

impl fmt::Display for Actor {
    /// As it stands in the audit log: `anna (uid 1000)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (uid {})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// A caller may not do what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    actor: Actor,
    action: Action,
    needed: Role,
    groups: Vec<String>,
}

impl Denied {
    /// What to do about it.
    #[must_use]
    pub fn next(&self) -> String {
        match self.groups.as_slice() {
            [] => "run the command as root or as the daemon's own user".to_owned(),
            groups => format!(
                "ask an administrator to add you to the group {}, or run the command as root",
                groups.join(" or ")
            ),
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { actor, needed, .. } = self;
        let roles: Vec<_> = actor.roles.iter().map(|role| role.as_str()).collect();
        let has = match roles.as_slice() {
            [] => "no role".to_owned(),
            roles => format!("only {}", roles.join(", ")),
        };
        let action = self.action.as_str();
        write!(
            f,
            "'{action}' needs the role {needed}, and {actor} has {has}"
        )
    }
}

impl std::error::Error for Denied {}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: u32, groups: &[&str]) -> Account {
        Account {
            uid,
            name: Some("anna".to_owned()),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        }
    }

    fn allowed(uid: u32, member_of: &[&str]) -> Vec<Action> {
        let groups = Groups::default();
        let actor = Actor::new(account(uid, member_of), 990, &groups);
        Action::ALL
            .into_iter()
            .filter(|action| actor.check(*action, &groups).is_ok())
            .collect()
    }

    #[test]
    fn each_role_may_do_just_its_own() {
        use Action::*;
        let table: [(u32, &[&str], &[Action]); 8] = [
            (0, &[], &Action::ALL),
            (990, &[], &Action::ALL),
            (1000, &["emccd-admin"], &Action::ALL),
            (
                1000,
                &["emccd-certificates", "users"],
                &[
                    AddTrust,
                    ExplainTrust,
                    RefreshCluster,
                    ReloadIdentities,
                    RemoveTrust,
                    RotateCertificates,
                    View,
                ],
            ),
            (
                1000,
                &["emccd-help-desk"],
                &[DropSession, LogoutSession, RetrySession, UnlockPin, View],
            ),
            (1000, &["emccd-viewer"], &[View]),
            (
                1000,
                &["emccd-help-desk", "emccd-certificates"],
                &[
                    AddTrust,
                    DropSession,
                    ExplainTrust,
                    LogoutSession,
                    RefreshCluster,
                    ReloadIdentities,
                    RemoveTrust,
                    RetrySession,
                    RotateCertificates,
                    UnlockPin,
                    View,
                ],
            ),
            (1000, &["users", "wheel", "emccd"], &[]),
        ];
        for (uid, groups, expected) in table {
            assert_eq!(allowed(uid, groups), expected, "uid {uid} in {groups:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_role_the_caller_and_the_group() {
        let groups = Groups::default();
        let viewer = Actor::new(account(1000, &["emccd-viewer"]), 990, &groups);
        let denied = viewer.check(Action::LogoutSession, &groups).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "'session logout' needs the role help-desk, and anna (uid 1000) has only viewer"
        );
        assert_eq!(
            denied.next(),
            "ask an administrator to add you to the group emccd-help-desk, or run the command as root"
        );
        let nobody = Actor::new(account(1000, &[]), 990, &groups);
        let denied = nobody.check(Action::View, &groups).unwrap_err();
        assert!(denied.to_string().ends_with("has no role"), "{denied}");
    }

    #[test]
    fn a_role_without_groups_points_at_root() {
        let groups = Groups {
            viewer: Vec::new(),
            ..Groups::default()
        };
        let nobody = Actor::new(account(1000, &[]), 990, &groups);
        let denied = nobody.check(Action::View, &groups).unwrap_err();
        assert_eq!(
            denied.next(),
            "run the command as root or as the daemon's own user"
        );
    }
}
