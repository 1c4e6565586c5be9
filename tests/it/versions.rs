//! The version matrix: 1.0 and the current protocol in both roles, with every login type, and no version in common.

use emccd::{
    domain::{login::LoginType, version::Version},
    lab::{Lab, dataset::User, member::Versions},
    wire::admin as pb,
};

use crate::support::{lab, living};

/// What a cluster of the matrix speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Current,
    OnlyOld,
    OnlyNew,
}

impl Speaks {
    fn versions(self) -> Versions {
        match self {
            Self::Current => Versions::default(),
            Self::OnlyOld => Versions::up_to(Version::V1_0),
            Self::OnlyNew => Versions::from(Version::V1_1),
        }
    }
}

/// What is in a phone's service URL.
const LOGIN_TYPES: [Option<LoginType>; 4] = [
    None,
    Some(LoginType::Uid),
    Some(LoginType::SelfService),
    Some(LoginType::Extension),
];

/// Both clusters again, with other versions.
async fn restart(lab: &mut Lab, speak: [Speaks; 2]) {
    for (cluster, speaks) in lab.clusters.iter_mut().zip(speak) {
        for member in &mut cluster.members {
            member.stop().await;
            member.start(&speaks.versions()).await.unwrap();
        }
    }
}

/// Waits until both directions are in that state, and gives what each side says of the other.
async fn both(lab: &Lab, state: &str, version: Option<&str>) -> [pb::OutboundStatus; 2] {
    let mut seen = Vec::new();
    for (us, them) in [(0, 1), (1, 0)] {
        let other = lab.clusters[them].id.clone();
        let is_so = |peer: &pb::PeerStatus| {
            let outbound = peer.outbound.clone().unwrap_or_default();
            outbound.state == state && (version.is_none() || outbound.version.as_deref() == version)
        };
        let status = lab.clusters[us]
            .wait_status(&other, state, is_so)
            .await
            .unwrap();
        seen.push(status.outbound.unwrap());
    }
    seen.try_into().unwrap()
}

fn name_of(user: &User, login_type: LoginType) -> &str {
    match login_type {
        LoginType::Uid => &user.user_id,
        LoginType::SelfService => user.self_service_id.as_deref().unwrap(),
        LoginType::Extension => user.primary_extension.as_deref().unwrap(),
    }
}

/// One cell: user `user` of `home` on a phone of `visiting` whose URL says `asked`.
async fn cell(
    lab: &Lab,
    (visiting, home): (usize, usize),
    speak: [Speaks; 2],
    asked: Option<LoginType>,
    user: usize,
) {
    let cell = format!(
        "{:?} visiting, {:?} home, {asked:?}",
        speak[visiting], speak[home]
    );
    let (user, visited) = (
        lab.clusters[home].data.user(user).unwrap(),
        &lab.clusters[visiting],
    );
    let device = &visited.data.phone(0).unwrap().name;
    let phone = visited.member().unwrap().phone().unwrap();
    // A 1.0 node does not know what the URL asks for.
    let meant = match speak[visiting] {
        Speaks::OnlyOld => LoginType::Uid,
        _ => asked.unwrap_or(LoginType::Uid),
    };
    let form = phone.login_form(device, asked).await.unwrap();
    let label = match meant {
        LoginType::Uid => "User ID",
        LoginType::SelfService => "Self-Service User ID",
        LoginType::Extension => "Extension",
    };
    assert_eq!(form.inputs[0].label, label, "{cell}: {}", form.body);
    let shown = phone
        .fill_in(&form, &[name_of(user, meant), &user.pin])
        .await
        .unwrap();
    if speak[home] == Speaks::OnlyOld && meant != LoginType::Uid {
        assert_eq!(shown.em_code, Some(1), "{cell}: {}", shown.body);
        assert!(
            shown.reference.is_some() && shown.text.lines().count() >= 3,
            "{cell}: {}",
            shown.text
        );
        assert!(
            living(lab, home).await.is_empty() && living(lab, visiting).await.is_empty(),
            "{cell}"
        );
        return;
    }
    assert_eq!(
        shown.headline(),
        "Login successful",
        "{cell}: {}",
        shown.body
    );
    for (cluster, role) in [(home, "home"), (visiting, "visiting")] {
        let sessions = living(lab, cluster).await;
        assert_eq!(sessions.len(), 1, "{cell}: {sessions:?}");
        assert_eq!(
            (&*sessions[0].role, &*sessions[0].state),
            (role, "active"),
            "{cell}"
        );
        assert_eq!(sessions[0].user_id.as_ref(), Some(&user.user_id), "{cell}");
        assert_eq!(sessions[0].login_type, meant.as_str(), "{cell}");
    }
    let shown = phone.logout(device).await.unwrap();
    assert_eq!(
        shown.headline(),
        "Logout successful",
        "{cell}: {}",
        shown.body
    );
    assert!(
        living(lab, home).await.is_empty() && living(lab, visiting).await.is_empty(),
        "{cell}"
    );
}

#[tokio::test]
async fn every_version_in_both_roles_with_every_login_type() {
    use Speaks::{Current, OnlyOld};
    let mut lab = lab(2).await;
    // Both current comes before the last: by then the search is short-cut by what earlier logins taught.
    for speak in [
        [OnlyOld, Current],
        [OnlyOld, OnlyOld],
        [Current, Current],
        [Current, OnlyOld],
    ] {
        restart(&mut lab, speak).await;
        let common = if speak.contains(&OnlyOld) {
            "1.0"
        } else {
            "1.1"
        };
        both(&lab, "up", Some(common)).await;
        for roles in [(1, 0), (0, 1)] {
            for asked in LOGIN_TYPES {
                cell(&lab, roles, speak, asked, 0).await;
            }
        }
    }
    // Nobody of the last round's other users was ever logged in: the search itself answers the same.
    for roles in [(1, 0), (0, 1)] {
        for asked in LOGIN_TYPES {
            cell(&lab, roles, [Current, OnlyOld], asked, 1).await;
        }
    }
    lab.shut_down().await;
}

#[tokio::test]
async fn a_1_0_phone_page_takes_an_extension_for_a_user_id() {
    let mut lab = lab(2).await;
    restart(&mut lab, [Speaks::Current, Speaks::OnlyOld]).await;
    both(&lab, "up", Some("1.0")).await;
    let (user, visiting) = (lab.clusters[0].data.user(0).unwrap(), &lab.clusters[1]);
    let device = &visiting.data.phone(0).unwrap().name;
    let phone = visiting.member().unwrap().phone().unwrap();
    for (login_type, expected) in [(LoginType::Extension, Some(23)), (LoginType::Uid, None)] {
        let typed = name_of(user, login_type);
        let shown = phone
            .login_at_once(device, Some(LoginType::Extension), typed, &user.pin)
            .await
            .unwrap();
        assert_eq!(shown.em_code, expected, "{}", shown.body);
    }
    lab.shut_down().await;
}

#[tokio::test]
async fn no_version_in_common_is_code_1_and_names_the_side_to_upgrade_on_both_sides() {
    let mut lab = lab(2).await;
    restart(&mut lab, [Speaks::OnlyOld, Speaks::OnlyNew]).await;
    let [berlin, tokyo] = both(&lab, "incompatible", None).await;
    let reason = |said: pb::OutboundStatus| said.reason.unwrap();
    assert_eq!(
        reason(berlin),
        "no protocol version in common with tokyo: this cluster speaks 1.0, tokyo speaks 1.1; upgrade this \
         cluster, or raise its --protocol-max"
    );
    assert_eq!(
        reason(tokyo),
        "no protocol version in common with berlin: this cluster speaks 1.1, berlin speaks 1.0; upgrade \
         berlin, or raise its --protocol-max"
    );
    for (visiting, home) in [(1, 0), (0, 1)] {
        let (user, visited) = (
            lab.clusters[home].data.user(0).unwrap(),
            &lab.clusters[visiting],
        );
        let phone = visited.member().unwrap().phone().unwrap();
        let device = &visited.data.phone(0).unwrap().name;
        let shown = phone
            .login(device, Some(LoginType::Uid), &user.user_id, &user.pin)
            .await
            .unwrap();
        assert_eq!(shown.em_code, Some(1), "{}", shown.body);
        // A local login does not care.
        let own = visited.data.user(0).unwrap();
        let shown = phone
            .login(device, None, &own.user_id, &own.pin)
            .await
            .unwrap();
        assert_eq!(shown.em_code, None, "{}", shown.body);
    }
    // The upgrade is all that it takes.
    let home = lab.clusters[0].member_mut().unwrap();
    home.stop().await;
    home.start(&Versions::default()).await.unwrap();
    both(&lab, "up", Some("1.1")).await;
    lab.shut_down().await;
}
