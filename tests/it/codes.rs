//! The EM codes through a phone's page: what a login or a logout is refused with, one after the other on three
//! clusters.
//!
//! [`ELSEWHERE`] names the test of each code that wants a stage of its own; together they are all that is ever raised.

use std::{cell::RefCell, collections::BTreeSet};

use emccd::{
    domain::{
        em_code::{EmCode, Raised},
        ids::ClusterId,
        login::LoginType,
        version::Version,
    },
    lab::{
        Cluster, Lab,
        member::Versions,
        phone::{Phone, Shown},
    },
    wire::admin as pb,
};

use crate::support::{lab, living, rows::tamper, set_parameter as set};
use crate::{crash, faults, peers, trust};

/// The user's home in most of what follows.
const BERLIN: usize = 0;
/// Where the phones stand.
const TOKYO: usize = 1;
const LIMA: usize = 2;

/// Codes that are raised and not here, with the test that shows each: one that goes takes this with it.
const ELSEWHERE: [(u16, fn()); 5] = [
    (
        0,
        faults::a_home_that_fails_without_a_reason_of_ours_is_0_and_is_told_to_forget_the_session,
    ),
    (
        6,
        faults::a_database_that_cannot_be_used_is_6_on_the_phone_and_nothing_is_left_behind,
    ),
    (26, crash::kills::visiting_is_killed_during_a_login),
    (40, peers::a_peer_that_stands_still_is_silent_and_heals),
    (
        42,
        trust::claims::a_peer_that_claims_another_cluster_s_id_gets_42_whatever_it_calls,
    ),
];

const PIN: &str = "246809";

/// What is shown is that code, with its text, its advice and a ref. It counts as seen.
struct Seen(RefCell<BTreeSet<u16>>);

impl Seen {
    fn login(&self, code: u16, shown: &Shown) {
        let row = EmCode::from_number(code).unwrap();
        self.page(code, shown, &row.login_text());
    }

    fn logout(&self, code: u16, shown: &Shown) {
        let row = EmCode::from_number(code).unwrap();
        self.page(code, shown, &row.logout_text());
    }

    fn page(&self, code: u16, shown: &Shown, text: &str) {
        let advice = EmCode::from_number(code).unwrap().advice();
        assert_eq!(shown.headline(), text, "{}", shown.body);
        assert!(shown.text.contains(advice), "{code}: {}", shown.body);
        assert!(shown.reference.is_some(), "{code}: {}", shown.body);
        self.0.borrow_mut().insert(code);
    }
}

/// Brings a cluster's data to what the text says.
async fn apply(cluster: &Cluster, toml: &str) {
    let file = pb::ApplyFile {
        name: "codes.toml".to_owned(),
        content: toml.to_owned(),
    };
    let request = pb::ApplyRequest {
        files: vec![file],
        ..pb::ApplyRequest::default()
    };
    cluster.admin().await.unwrap().apply(request).await.unwrap();
}

/// A user with a PIN and one device profile.
fn user(id: &str, more: &str) -> String {
    format!(
        "[[user]]\nid = \"{id}\"\npin = \"{PIN}\"\n{more}\n{}",
        profile(id, "desk")
    )
}

fn profile(user: &str, name: &str) -> String {
    format!("[[profile]]\nname = \"{user} {name}\"\nuser = \"{user}\"\n")
}

fn phone_of(cluster: &Cluster) -> Phone {
    cluster.member().unwrap().phone().unwrap()
}

fn device(cluster: &Cluster, number: usize) -> &str {
    &cluster.data.phone(number).unwrap().name
}

/// Logs a user in on a phone, and checks that it worked.
async fn on(cluster: &Cluster, number: usize, user: &str) {
    let shown = typed(cluster, number, user, PIN).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    assert_eq!(shown.headline(), "Login successful", "{}", shown.body);
}

async fn off(cluster: &Cluster, number: usize) {
    let phone = phone_of(cluster);
    let shown = phone.logout(device(cluster, number)).await.unwrap();
    assert_eq!(shown.em_code, None, "{}", shown.body);
}

async fn typed(cluster: &Cluster, number: usize, user: &str, pin: &str) -> Shown {
    let device = device(cluster, number);
    let phone = phone_of(cluster);
    phone.login_at_once(device, None, user, pin).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_code_that_is_raised_is_on_a_page() {
    let seen = Seen(RefCell::default());
    let mut lab = lab(3).await;
    what_the_phone_itself_gets_wrong(&lab, &seen).await;
    who_it_is(&lab, &seen).await;
    what_home_minds(&lab, &seen).await;
    the_places_at_home(&lab, &seen).await;
    what_one_side_has_not_configured(&lab, &seen).await;
    secure_phones(&mut lab, &seen).await;
    lab.clusters[BERLIN].member_mut().unwrap().stop().await;
    seen.login(208, &typed(&lab.clusters[TOKYO], 0, "zoe", PIN).await);
    lab.shut_down().await;

    let alone = crate::support::lab(1).await;
    seen.login(36, &typed(&alone.clusters[0], 0, "nobody", PIN).await);
    alone.shut_down().await;

    let raised = EmCode::ALL.iter().filter(|c| c.raised() == Raised::Yes);
    let raised: BTreeSet<u16> = raised.map(|code| code.number()).collect();
    let mut shown = seen.0.into_inner();
    for (code, _) in ELSEWHERE {
        assert!(
            shown.insert(code),
            "{code} is here, and need not be elsewhere"
        );
    }
    assert_eq!(shown, raised);
}

async fn what_the_phone_itself_gets_wrong(lab: &Lab, seen: &Seen) {
    let tokyo = &lab.clusters[TOKYO];
    let phone = phone_of(tokyo);
    let page = |query: String| format!("/emapp/EMAppServlet?{query}");
    let name = device(tokyo, 0);
    for (code, query) in [
        (207, "EMCC=true".to_owned()),
        (11, "device=SEPFFFFFFFFFFFF&userid=a&seq=1".to_owned()),
        (215, format!("device={name}&loginType=XX")),
        (202, format!("device={name}&userid=ana&seq=")),
        (1, format!("device={name}&userid=%FF&seq=1")),
    ] {
        seen.login(code, &phone.raw_get(&page(query)).await.unwrap());
    }
    let barred = tokyo.data.devices.iter().find(|d| !d.em_enabled).unwrap();
    let shown = phone.login_at_once(&barred.name, None, "ana", "1").await;
    seen.login(22, &shown.unwrap());
    let out = page(format!("device={name}&doLogout=true"));
    seen.logout(19, &phone.raw_get(&out).await.unwrap());

    set(tokyo, "validate-ip-address", "on").await;
    let login = page(format!("device={name}&EMCC=true&userid=ana&seq=1"));
    seen.login(28, &phone.raw_get(&login).await.unwrap());
    let proxied = phone.raw_get_via("1.1 proxy.tokyo", &login).await;
    seen.login(30, &proxied.unwrap());
    seen.logout(28, &phone.raw_get(&out).await.unwrap());
    set(tokyo, "trusted-ips", "127.0.0.1").await;
    seen.logout(19, &phone.raw_get(&out).await.unwrap());
    set(tokyo, "validate-ip-address", "off").await;
}

async fn who_it_is(lab: &Lab, seen: &Seen) {
    let [berlin, tokyo, lima] = [BERLIN, TOKYO, LIMA].map(|n| &lab.clusters[n]);
    let phone = phone_of(tokyo);
    let (visitor, local) = (berlin.data.user(0).unwrap(), tokyo.data.user(0).unwrap());
    seen.login(23, &typed(tokyo, 0, "nobody", PIN).await);
    seen.login(2, &typed(tokyo, 0, &visitor.user_id, "000").await);
    seen.login(201, &typed(tokyo, 0, &local.user_id, "000").await);
    for (code, cluster) in [(47, berlin), (216, tokyo)] {
        let shared = cluster.data.shared_extension().unwrap();
        let extension = shared.primary_extension.as_deref().unwrap();
        let dn = Some(LoginType::Extension);
        let shown = phone.login_at_once(device(tokyo, 0), dn, extension, PIN);
        seen.login(code, &shown.await.unwrap());
    }
    for cluster in [berlin, lima] {
        apply(cluster, &user("twin", "")).await;
    }
    seen.login(4, &typed(tokyo, 0, "twin", PIN).await);
    let plain = tokyo.data.devices.iter().find(|d| !d.emcc).unwrap();
    let shown = phone.login_at_once(&plain.name, None, &visitor.user_id, &visitor.pin);
    seen.login(213, &shown.await.unwrap());
    on_both(lab, seen).await;
}

/// Somebody is on the phone, and on another one.
async fn on_both(lab: &Lab, seen: &Seen) {
    let (berlin, tokyo) = (&lab.clusters[BERLIN], &lab.clusters[TOKYO]);
    apply(berlin, &user("zoe", "")).await;
    on(tokyo, 0, "zoe").await;
    seen.login(18, &typed(tokyo, 0, "zoe", PIN).await);
    seen.login(25, &typed(tokyo, 1, "zoe", PIN).await);
    off(tokyo, 0).await;
}

async fn what_home_minds(lab: &Lab, seen: &Seen) {
    let (berlin, tokyo) = (&lab.clusters[BERLIN], &lab.clusters[TOKYO]);
    let bare = |id: &str| format!("[[user]]\nid = \"{id}\"\npin = \"{PIN}\"\n");
    let at_berlin = [
        bare("bare"),
        user("stays", "emcc = false"),
        user("stale", ""),
        format!("[[device]]\nname = \"{}\"\n", device(tokyo, 3)),
    ];
    apply(berlin, &at_berlin.concat()).await;
    let at_tokyo = [bare("bare-here"), user("stale-here", "")];
    apply(tokyo, &at_tokyo.concat()).await;
    for cluster in [berlin, tokyo] {
        tamper(
            cluster,
            "UPDATE credentials SET must_change = 1 WHERE user_key LIKE 'stale%'",
        )
        .await;
    }
    for (code, name) in [
        (12, "bare"),
        (205, "bare-here"),
        (31, "stays"),
        (41, "stale"),
        (209, "stale-here"),
    ] {
        seen.login(code, &typed(tokyo, 0, name, PIN).await);
    }
    // Only whoever knows the PIN learns that it must be changed.
    seen.login(2, &typed(tokyo, 0, "stale", "1").await);
    seen.login(201, &typed(tokyo, 0, "stale-here", "1").await);
    seen.login(37, &typed(tokyo, 3, "zoe", PIN).await);
}

async fn the_places_at_home(lab: &Lab, seen: &Seen) {
    let (berlin, tokyo) = (&lab.clusters[BERLIN], &lab.clusters[TOKYO]);
    let phones = [0, 1, 2, 4];
    assert_eq!(berlin.data.base_devices, phones.len());
    for number in phones {
        let name = format!("guest{number}");
        apply(berlin, &user(&name, "")).await;
        on(tokyo, number, &name).await;
    }
    seen.login(33, &typed(tokyo, 5, "zoe", PIN).await);
    for number in phones {
        off(tokyo, number).await;
    }
}

async fn what_one_side_has_not_configured(lab: &Lab, seen: &Seen) {
    let [berlin, tokyo, lima] = [BERLIN, TOKYO, LIMA].map(|n| &lab.clusters[n]);
    let allow = |cluster: &ClusterId, allowed| pb::SetClusterRequest {
        cluster_id: cluster.to_string(),
        allow_emcc: Some(allowed),
        ..pb::SetClusterRequest::default()
    };
    let mut admin = berlin.admin().await.unwrap();
    // Tokyo remembers whose home it is, so that the login itself is refused; Lima knows nothing of this user.
    for (visited, id) in [(tokyo, &tokyo.id), (lima, &lima.id)] {
        admin.set_cluster(allow(id, false)).await.unwrap();
        seen.login(38, &typed(visited, 0, "zoe", PIN).await);
        admin.set_cluster(allow(id, true)).await.unwrap();
    }
    on(lima, 0, "zoe").await;
    off(lima, 0).await;
    // What is trusted hangs on the record: it holds no more without one, and again with the next.
    only_peers(berlin, &[tokyo]).await;
    seen.login(208, &typed(lima, 0, "zoe", PIN).await);
    only_peers(berlin, &[tokyo, lima]).await;
    lima.wait_linked(&berlin.id).await.unwrap();
    on(lima, 0, "zoe").await;
    off(lima, 0).await;
    // The moment between the end of a record and the end of the trust that hangs on it, made to last.
    tamper(berlin, "DELETE FROM peers WHERE cluster_id = 'lima'").await;
    seen.login(35, &typed(lima, 0, "zoe", PIN).await);
}

/// Has a cluster prune every other peer's record.
async fn only_peers(cluster: &Cluster, peers: &[&Cluster]) {
    let row = |peer: &&Cluster| {
        let address = &peer.member().unwrap().addresses.federation;
        format!(
            "[[peer]]\nid = \"{}\"\naddresses = [\"{address}\"]\n",
            peer.id
        )
    };
    let file = pb::ApplyFile {
        name: "peers.toml".to_owned(),
        content: peers.iter().map(row).collect(),
    };
    let request = pb::ApplyRequest {
        files: vec![file],
        prune: true,
        ..pb::ApplyRequest::default()
    };
    cluster.admin().await.unwrap().apply(request).await.unwrap();
}

/// Tokyo becomes one in mixed mode, then Berlin an old one.
async fn secure_phones(lab: &mut Lab, seen: &Seen) {
    let name = device(&lab.clusters[TOKYO], 6).to_owned();
    let secure = format!("[[device]]\nname = \"{name}\"\nsecurity-mode = \"secure\"\n");
    apply(&lab.clusters[TOKYO], &secure).await;
    seen.login(43, &typed(&lab.clusters[TOKYO], 6, "zoe", PIN).await);
    let member = lab.clusters[TOKYO].member_mut().unwrap();
    let config = std::fs::read_to_string(&member.config).unwrap();
    let mixed = config.replace(
        "[federation]\n",
        "[federation]\nsecurity-mode = \"secure\"\n",
    );
    assert_ne!(config, mixed);
    std::fs::write(&member.config, mixed).unwrap();
    member.stop().await;
    member.start(&Versions::default()).await.unwrap();
    linked(lab).await;
    seen.login(46, &typed(&lab.clusters[TOKYO], 6, "zoe", PIN).await);
    on(&lab.clusters[TOKYO], 0, "zoe").await;
    off(&lab.clusters[TOKYO], 0).await;
    let member = lab.clusters[BERLIN].member_mut().unwrap();
    member.stop().await;
    member.start(&Versions::up_to(Version::V1_0)).await.unwrap();
    linked(lab).await;
    seen.login(45, &typed(&lab.clusters[TOKYO], 6, "zoe", PIN).await);
    on(&lab.clusters[TOKYO], 0, "zoe").await;
    off(&lab.clusters[TOKYO], 0).await;
}

async fn linked(lab: &Lab) {
    let (berlin, tokyo) = (&lab.clusters[BERLIN], &lab.clusters[TOKYO]);
    berlin.wait_linked(&tokyo.id).await.unwrap();
    tokyo.wait_linked(&berlin.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_several_profiles_chooses_on_the_phone_and_types_the_pin_once() {
    let mut lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    for cluster in [berlin, tokyo] {
        let several = [
            user(&format!("pat-{}", cluster.id), ""),
            profile(&format!("pat-{}", cluster.id), "lobby"),
        ];
        apply(cluster, &several.concat()).await;
    }
    for (home, wrong) in [("berlin", 2), ("tokyo", 201)] {
        let name = format!("pat-{home}");
        let phone = phone_of(tokyo);
        let asked = typed(tokyo, 0, &name, PIN).await;
        assert_eq!(asked.object, "CiscoIPPhoneMenu", "{}", asked.body);
        let entries: Vec<_> = asked.menu.iter().map(|e| e.name.clone()).collect();
        assert_eq!(entries, [format!("{name} desk"), format!("{name} lobby")]);
        assert!(!asked.body.contains(PIN), "{}", asked.body);
        assert!(living(&lab, 0).await.is_empty() && living(&lab, 1).await.is_empty());
        let shown = phone.select(&asked, &entries[1]).await.unwrap();
        assert_eq!(shown.headline(), "Login successful", "{}", shown.body);
        let session = living(&lab, 1).await.remove(0);
        assert_eq!(session.profile.as_ref(), Some(&entries[1]), "{session:?}");
        off(tokyo, 0).await;
        // The page is still on the phone; it is good for nothing any more, and on no other phone.
        let used = phone.select(&asked, &entries[0]).await.unwrap();
        assert_eq!(used.em_code, Some(wrong), "{}", used.body);
        let asked = typed(tokyo, 0, &name, PIN).await;
        let elsewhere = asked.menu[0]
            .url
            .replace(device(tokyo, 0), device(tokyo, 1));
        let path = elsewhere
            .find("/emapp")
            .map(|at| elsewhere[at..].to_owned());
        let shown = phone.raw_get(&path.unwrap()).await.unwrap();
        assert_eq!(shown.em_code, Some(201), "{}", shown.body);
    }
    // A visiting cluster that can't ask gets the first one.
    let member = lab.clusters[1].member_mut().unwrap();
    member.stop().await;
    member.start(&Versions::up_to(Version::V1_0)).await.unwrap();
    linked(&lab).await;
    on(&lab.clusters[1], 0, "pat-berlin").await;
    let session = living(&lab, 1).await.remove(0);
    assert_eq!(session.profile.as_deref(), Some("pat-berlin desk"));
    lab.shut_down().await;
}
