//! Every way in which a session ends, over a link and while the link is cut: it ends on both sides, or its end is owed,
//! shown as owed with whom and why, and told when the link is back, also by a node that was started anew meanwhile.

use std::time::Duration;

use emccd::{
    lab::{
        Cluster, Lab, Spec,
        admin::Admin,
        member::Versions,
        proxy::{Mode, Proxy},
    },
    wire::admin::{self as pb, logout_session_request::Which},
};

use crate::{
    people::done,
    support::{holds, log_in_at, log_out, rows::tamper, set_parameter, until},
};

const HOME: usize = 0;
const VISITING: usize = 1;

/// How soon a linked cluster knows of an end, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Ways in which one session ends. Each is that of the user, and of the phone, of its own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Phone,
    OperatorThere,
    OperatorAtHome,
    Expiry,
    SecondLogin,
    UserDisabled,
    UserDeleted,
    BaseDeviceRemoved,
    PhoneRemoved,
}

const WAYS: [Way; 9] = [
    Way::Phone,
    Way::OperatorThere,
    Way::OperatorAtHome,
    Way::Expiry,
    Way::SecondLogin,
    Way::UserDisabled,
    Way::UserDeleted,
    Way::BaseDeviceRemoved,
    Way::PhoneRemoved,
];
/// How many of them have users and phones of their own.
const OWN: usize = 8;

impl Way {
    /// Whose users and phones are the built-in ones; the last one's are those of the first when that one is over.
    fn number(self) -> usize {
        let at = WAYS.iter().position(|way| *way == self).unwrap();
        at % OWN
    }

    /// Where it begins: that cluster owes the other one the news.
    fn begins(self) -> usize {
        match self {
            Self::Phone | Self::OperatorThere | Self::PhoneRemoved => VISITING,
            _ => HOME,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Phone => "user",
            Self::OperatorThere
            | Self::OperatorAtHome
            | Self::UserDeleted
            | Self::BaseDeviceRemoved
            | Self::PhoneRemoved => "operator",
            Self::Expiry => "expired",
            Self::SecondLogin => "superseded",
            Self::UserDisabled => "revoked",
        }
    }
}

/// Two clusters, each of which reaches the other through a relay.
struct Scene {
    lab: Lab,
    relays: [Proxy; 2],
}

impl Scene {
    async fn set() -> Self {
        let lab = Lab::start(&Spec {
            clusters: 2,
            paired: false,
            ..Spec::default()
        })
        .await
        .unwrap();
        let relay = async |to: usize| {
            let target = lab.clusters[to]
                .member()
                .unwrap()
                .addresses
                .federation
                .clone();
            Proxy::start(target).await.unwrap()
        };
        let relays = [relay(HOME).await, relay(VISITING).await];
        let scene = Self { lab, relays };
        for us in [HOME, VISITING] {
            scene.introduce(us).await;
        }
        scene.linked().await;
        let home = &scene.lab.clusters[HOME];
        set_parameter(home, "multiple-login-behavior", "auto-logout").await;
        set_parameter(home, "multiple-login-unreachable", "take-over").await;
        scene
            .apply(HOME, "[[base-device]]\nname = \"EMCC\"\ncount = 12\n")
            .await;
        scene
    }

    /// Has one cluster know the other, by way of the relay.
    async fn introduce(&self, us: usize) {
        let them = 1 - us;
        let address = self.relays[them].address.to_string();
        let there = &self.lab.clusters[them];
        self.lab.clusters[us]
            .trust_at(there, vec![address])
            .await
            .unwrap();
    }

    async fn linked(&self) {
        for us in [HOME, VISITING] {
            let them = &self.lab.clusters[1 - us].id;
            self.lab.clusters[us].wait_linked(them).await.unwrap();
        }
    }

    /// Cuts both directions, and waits until both sides have seen it.
    async fn cut(&self) {
        self.relays.iter().for_each(|relay| relay.set(Mode::Refuse));
        self.unlinked().await;
    }

    async fn unlinked(&self) {
        let is_down = |peer: &pb::PeerStatus| {
            let is_known = |out: &pb::OutboundStatus| out.state == "down" && out.reason.is_some();
            peer.outbound.as_ref().is_some_and(is_known)
        };
        for us in [HOME, VISITING] {
            let them = &self.lab.clusters[1 - us].id;
            let seen = self.lab.clusters[us]
                .wait_status(them, "down", is_down)
                .await;
            seen.unwrap();
        }
    }

    async fn heal(&self) {
        self.relays.iter().for_each(|relay| relay.set(Mode::Open));
        self.linked().await;
    }

    async fn restart(&mut self, at: usize) {
        let member = self.lab.clusters[at].member_mut().unwrap();
        member.stop().await;
        member.start(&Versions::default()).await.unwrap();
    }

    fn at(&self, at: usize) -> &Cluster {
        &self.lab.clusters[at]
    }

    async fn admin(&self, at: usize) -> Admin {
        self.at(at).admin().await.unwrap()
    }

    async fn apply(&self, at: usize, toml: &str) {
        let file = pb::ApplyFile {
            name: "more.toml".to_owned(),
            content: toml.to_owned(),
        };
        let request = pb::ApplyRequest {
            files: vec![file],
            ..pb::ApplyRequest::default()
        };
        self.admin(at).await.apply(request).await.unwrap();
    }

    fn user(&self, way: Way) -> &str {
        &self.at(HOME).data.user(way.number()).unwrap().user_id
    }

    /// Whether its phone asks who wants to log in.
    async fn is_free(&self, way: Way) -> bool {
        let visiting = self.at(VISITING);
        let device = &visiting.data.phone(way.number()).unwrap().name;
        let browser = visiting.member().unwrap().phone().unwrap();
        browser.login_form(device, None).await.unwrap().is_form()
    }

    async fn logs_in(&self, way: Way) {
        let (home, visiting) = (self.at(HOME), self.at(VISITING));
        let shown = log_in_at(home, way.number(), visiting, way.number()).await;
        assert_eq!(shown.em_code, None, "{way:?}: {}", shown.body);
    }

    /// The row of the user's newest session between the two, as operators see it at one of them.
    async fn row(&self, at: usize, way: Way) -> pb::Session {
        let request = pb::ListSessionsRequest {
            peer: Some(self.at(1 - at).id.to_string()),
            user_id: Some(self.user(way).to_owned()),
            include_ended: true,
            ..pb::ListSessionsRequest::default()
        };
        let found = self
            .admin(at)
            .await
            .sessions(request)
            .await
            .unwrap()
            .sessions;
        let first = found.into_iter().next();
        first.unwrap_or_else(|| panic!("{way:?}: no row at cluster {at}"))
    }

    async fn end(&self, way: Way) {
        let (home, visiting) = (self.at(HOME), self.at(VISITING));
        let device = || visiting.data.phone(way.number()).unwrap().name.clone();
        let removal = |kind: &str, name: String| pb::RemoveRecordRequest {
            kind: kind.to_owned(),
            name,
            end_sessions: true,
        };
        match way {
            Way::Phone => {
                let shown = log_out(visiting, way.number()).await;
                assert_eq!(shown.em_code, None, "{}", shown.body);
            }
            Way::OperatorThere => {
                let which = Some(Which::Device(device()));
                let request = pb::LogoutSessionRequest { which };
                self.admin(VISITING).await.logout(request).await.unwrap();
            }
            Way::OperatorAtHome => {
                let which = Some(Which::Id(self.row(HOME, way).await.id));
                let request = pb::LogoutSessionRequest { which };
                self.admin(HOME).await.logout(request).await.unwrap();
            }
            // Its time is over: the row says so, as it will when the hours have passed.
            Way::Expiry => {
                const OVER: &str =
                    "UPDATE sessions SET deadline = 1 WHERE role = 'home' AND state = 'active'
                                    AND user_key = 'ida.berlin'";
                assert_eq!(self.user(way), "ida.berlin");
                tamper(home, OVER).await;
            }
            Way::SecondLogin => {
                let shown = log_in_at(home, way.number(), home, 0).await;
                assert_eq!(shown.em_code, None, "{}", shown.body);
            }
            Way::UserDisabled => {
                let line = format!("[[user]]\nid = \"{}\"\nenabled = false\n", self.user(way));
                self.apply(HOME, &line).await;
            }
            Way::UserDeleted => {
                let request = removal("user", self.user(way).to_owned());
                self.admin(HOME).await.remove_record(request).await.unwrap();
            }
            Way::BaseDeviceRemoved => {
                let base = self.row(HOME, way).await.base_device.unwrap();
                let request = removal("base-device", base);
                self.admin(HOME).await.remove_record(request).await.unwrap();
            }
            Way::PhoneRemoved => {
                let request = removal("device", device());
                self.admin(VISITING)
                    .await
                    .remove_record(request)
                    .await
                    .unwrap();
            }
        }
    }

    /// Waits until a row is over, and told or owed.
    async fn over(&self, at: usize, way: Way, owed: bool) -> pb::Session {
        let what = format!("{way:?} is over at cluster {at}, owed: {owed}");
        until(SOON, what, async || {
            let row = self.row(at, way).await;
            holds(row.state == "ended" && row.owed == owed, &row).map(|()| row)
        })
        .await
    }

    /// Both sides know of the end, for the same reason, and nobody is owed anything.
    async fn over_on_both(&self, way: Way) {
        for at in [HOME, VISITING] {
            let row = self.over(at, way, false).await;
            let reason = row.end_reason.as_deref();
            assert_eq!(
                reason,
                Some(way.reason()),
                "{way:?} at cluster {at}: {row:?}"
            );
            assert_eq!((row.owed_cause, row.parked), (None, None), "{way:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_link_each_end_is_one_on_both_sides() {
    let scene = Scene::set().await;
    for way in WAYS {
        scene.logs_in(way).await;
        assert_eq!(scene.row(VISITING, way).await.state, "active");
        assert!(!scene.is_free(way).await, "{way:?}");
        scene.end(way).await;
        scene.over_on_both(way).await;
        // One that was removed is none any more.
        assert!(
            way == Way::PhoneRemoved || scene.is_free(way).await,
            "{way:?}"
        );
    }
    for at in [HOME, VISITING] {
        let owed = done(scene.at(at), "session list --owed", "").await;
        assert!(owed.contains("nothing is owed"), "{owed}");
    }
    let held = scene.admin(HOME).await.held().await.unwrap();
    assert!(held.is_empty(), "{held:?}");
    scene.lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_link_is_cut_each_end_is_owed_and_shown_so_and_told_when_it_is_back() {
    let mut scene = Scene::set().await;
    // The last one's phone is the first one's: it has a cut of its own.
    for ways in [&WAYS[..OWN], &WAYS[OWN..]] {
        for way in ways {
            scene.logs_in(*way).await;
        }
        scene.cut().await;
        for way in ways {
            scene.end(*way).await;
            let row = scene.over(way.begins(), *way, true).await;
            assert_eq!(row.end_reason.as_deref(), Some(way.reason()), "{way:?}");
            let cause = row.owed_cause.unwrap();
            assert!(cause.contains("the link is down"), "{way:?}: {cause}");
            let other = scene.row(1 - way.begins(), *way).await;
            assert_eq!(other.state, "active", "{way:?}: it can't know");
        }
        for at in [HOME, VISITING] {
            let here: Vec<_> = ways.iter().filter(|way| way.begins() == at).collect();
            let all = done(scene.at(at), "session list --owed", "").await;
            let status = done(scene.at(at), "cluster status", "").await;
            for way in &here {
                assert!(all.contains(scene.user(**way)), "{way:?}: {all}");
            }
            assert_eq!(all.matches("the link is down").count(), here.len(), "{all}");
            let line = match here.len() {
                0 => continue,
                1 => "1 end of sessions".to_owned(),
                n => format!("{n} ends of sessions"),
            };
            assert!(status.contains(&line), "{status}");
            let id = scene.row(at, *here[0]).await.id;
            let shown = done(scene.at(at), &format!("session show {id}"), "").await;
            let other = &scene.at(1 - at).id;
            assert!(
                shown.contains(&format!("still to be told  {other}")),
                "{shown}"
            );
            assert!(
                shown.contains("not told because  the link is down"),
                "{shown}"
            );
        }
        for at in [HOME, VISITING] {
            scene.restart(at).await;
        }
        scene.heal().await;
        for way in ways {
            scene.over_on_both(*way).await;
        }
    }
    scene.lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_removed_is_told_first_or_nothing_ends() {
    let scene = Scene::set().await;
    scene.logs_in(Way::Phone).await;
    scene.cut().await;
    let removal = |forget_owed| pb::RemoveClusterRequest {
        cluster_id: scene.at(VISITING).id.to_string(),
        forget_owed,
    };
    let refused = scene.admin(HOME).await.remove_cluster(removal(false)).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("nothing was ended"), "{refused}");
    for at in [HOME, VISITING] {
        assert_eq!(scene.row(at, Way::Phone).await.state, "active");
    }
    scene.heal().await;
    let id = scene.row(VISITING, Way::Phone).await.id;
    scene
        .admin(HOME)
        .await
        .remove_cluster(removal(false))
        .await
        .unwrap();
    let there = scene.over(VISITING, Way::Phone, false).await;
    assert_eq!(
        (there.id, there.end_reason.as_deref()),
        (id, Some("revoked"))
    );
    scene.lab.shut_down().await;
}

/// Takes back, or gives, all trust of home in visiting.
async fn distrust(scene: &Scene) {
    let cluster_id = scene.at(VISITING).id.to_string();
    let mut admin = scene.admin(HOME).await;
    let query = pb::ListTrustRequest {
        cluster_id: Some(cluster_id.clone()),
    };
    for entry in admin.trust(query).await.unwrap().entries {
        let request = pb::RemoveTrustRequest {
            cluster_id: cluster_id.clone(),
            fingerprint: entry.certificate.unwrap().fingerprint,
            mode: "unlink".to_owned(),
        };
        admin.remove_trust(request).await.unwrap();
    }
}

async fn trust_again(scene: &Scene) {
    let member = scene.at(VISITING).member().unwrap();
    let request = pb::AddTrustRequest {
        cluster_id: scene.at(VISITING).id.to_string(),
        trust: Some(pb::TrustMaterial {
            kind: "pinned".to_owned(),
            certificates: std::fs::read(&member.federation_certificate).unwrap(),
        }),
        unrevoke: None,
    };
    scene.admin(HOME).await.add_trust(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_distrusted_loses_what_is_shared_and_hears_of_it_when_it_is_trusted_again() {
    let mut scene = Scene::set().await;
    for is_cut in [false, true] {
        scene.logs_in(Way::Phone).await;
        // And one of its users on a phone of ours.
        let shown = log_in_at(scene.at(VISITING), 0, scene.at(HOME), 1).await;
        assert_eq!(shown.em_code, None, "{}", shown.body);
        if is_cut {
            scene.cut().await;
        }
        distrust(&scene).await;
        let home = scene.over(HOME, Way::Phone, true).await;
        assert_eq!(home.end_reason.as_deref(), Some("revoked"));
        scene.unlinked().await;
        let owed = until(SOON, "both ends are owed", async || {
            let request = pb::ListSessionsRequest {
                only_owed: true,
                ..pb::ListSessionsRequest::default()
            };
            let mut admin = scene.admin(HOME).await;
            let owed = admin.sessions(request).await.unwrap().sessions;
            holds(owed.len() == 2, &owed).map(|()| owed)
        })
        .await;
        for row in &owed {
            assert_eq!(row.end_reason.as_deref(), Some("revoked"), "{row:?}");
            let cause = row.owed_cause.as_deref().unwrap();
            assert!(is_cut || cause.contains("no trust"), "{cause}");
        }
        let held = scene.admin(HOME).await.held().await.unwrap();
        assert!(held.is_empty(), "{held:?}");
        assert_eq!(scene.row(VISITING, Way::Phone).await.state, "active");
        if !is_cut {
            // It is told why at each attempt: that is what it goes by when this lasts.
            let is_told = |peer: &pb::PeerStatus| {
                let out = peer.outbound.as_ref();
                out.is_some_and(|out| out.rejection.as_deref() == Some("revoked"))
            };
            let home = &scene.at(HOME).id;
            let told = scene
                .at(VISITING)
                .wait_status(home, "revoked", is_told)
                .await;
            told.unwrap();
        }
        scene.restart(HOME).await;
        trust_again(&scene).await;
        scene.heal().await;
        for at in [HOME, VISITING] {
            let row = scene.over(at, Way::Phone, false).await;
            assert_eq!(row.end_reason.as_deref(), Some("revoked"), "{row:?}");
        }
        let living = scene.admin(VISITING).await.living().await.unwrap();
        assert!(living.is_empty(), "{living:?}");
    }
    scene.lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_disabled_keeps_its_sessions_and_may_say_that_they_are_over() {
    let scene = Scene::set().await;
    scene.logs_in(Way::Phone).await;
    scene.logs_in(Way::OperatorAtHome).await;
    let enable = async |enabled| {
        let request = pb::SetClusterRequest {
            cluster_id: scene.at(VISITING).id.to_string(),
            enabled: Some(enabled),
            ..pb::SetClusterRequest::default()
        };
        scene.admin(HOME).await.set_cluster(request).await.unwrap();
    };
    enable(false).await;
    let is_off = |peer: &pb::PeerStatus| !peer.enabled;
    let visiting = &scene.at(VISITING).id;
    scene
        .at(HOME)
        .wait_status(visiting, "disabled", is_off)
        .await
        .unwrap();
    // Its word that a session is over is taken.
    scene.end(Way::Phone).await;
    scene.over_on_both(Way::Phone).await;
    // Ours waits.
    scene.end(Way::OperatorAtHome).await;
    let owed = scene.over(HOME, Way::OperatorAtHome, true).await;
    let cause = owed.owed_cause.unwrap();
    assert!(cause.contains("the peer tokyo is disabled"), "{cause}");
    let there = scene.row(VISITING, Way::OperatorAtHome).await;
    assert_eq!(there.state, "active", "nothing ends because of it");
    enable(true).await;
    scene.over_on_both(Way::OperatorAtHome).await;
    scene.lab.shut_down().await;
}
