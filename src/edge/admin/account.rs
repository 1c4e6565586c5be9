//! Asks the machine who a user id is. It may wait for a directory service, so it runs off the async threads.

use std::{collections::BTreeSet, ffi::CString};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::edge::admin::roles::Account;

/// Looks up the name and the groups behind `uid`. What the machine can't tell is left out: a user that it
/// does not know has no groups, and so no role.
pub async fn look_up(uid: u32) -> Account {
    let unknown = Account {
        uid,
        name: None,
        groups: BTreeSet::new(),
    };
    tokio::task::spawn_blocking(move || read(uid))
        .await
        .unwrap_or(unknown)
}

/// The user that this process runs as.
#[must_use]
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn read(uid: u32) -> Account {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let groups = user
        .as_ref()
        .map(|user| group_names(&user.name, user.gid))
        .unwrap_or_default();
    Account {
        uid,
        name: user.map(|user| user.name),
        groups,
    }
}

fn group_names(user: &str, primary: Gid) -> BTreeSet<String> {
    let Ok(user) = CString::new(user) else {
        return BTreeSet::new();
    };
    getgrouplist(&user, primary)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|gid| Group::from_gid(gid).ok().flatten())
        .map(|group| group.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn root_has_a_name_and_groups() {
        let root = look_up(0).await;
        assert_eq!(root.name.as_deref(), Some("root"));
        assert!(root.groups.contains("root"), "{:?}", root.groups);
    }

    #[tokio::test]
    async fn an_unknown_id_has_neither() {
        let nobody = look_up(3_999_999_999).await;
        assert_eq!((nobody.name, nobody.groups.len()), (None, 0));
    }
}
