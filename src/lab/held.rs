//! What the clusters of a lab hold after a step, against what they should: rows on both sides, base devices, and
//! what their operators read about a link that is down.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{
    Cluster, Lab,
    admin::LOOK_AGAIN,
    member::Member,
    report::Step,
    scenario::{HOME, visiting},
};
use crate::{
    domain::{ids::ClusterId, rejection::Rejection},
    wire::admin as pb,
};

/// What is to be left by a step, in all clusters together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No living session and no base device held, anywhere.
    Nothing,
    /// A user of visiting on a phone of visiting: a row in each role, and no base device.
    Local,
    /// So many users of home on phones of visiting: a row on each side, and a base device of home for each.
    Remote(usize),
}

impl Expected {
    /// The rows, as role and counterpart, and the number of base devices that the cluster `at` holds.
    fn at(self, at: &str, home: &str, visiting: &str) -> Holding {
        let row = |role: &str, peer: &str| (role.to_owned(), peer.to_owned());
        let (rows, base_devices) = match self {
            Self::Local if at == visiting => (vec![row("home", at), row("visiting", at)], 0),
            Self::Remote(count) if at == home => (vec![row("home", visiting); count], count),
            Self::Remote(count) if at == visiting => (vec![row("visiting", home); count], 0),
            Self::Nothing | Self::Local | Self::Remote(_) => (Vec::new(), 0),
        };
        Holding { rows, base_devices }
    }
}

/// What one cluster holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holding {
    /// Role and counterpart of each living session, in order.
    rows: Vec<(String, String)>,
    base_devices: usize,
}

impl Holding {
    async fn of(cluster: &Cluster) -> Result<Self> {
        let mut admin = cluster.admin().await?;
        let sessions = admin.living().await?;
        let mut rows: Vec<_> = sessions.into_iter().map(|s| (s.role, s.peer)).collect();
        rows.sort();
        Ok(Self {
            rows,
            base_devices: admin.held().await?.len(),
        })
    }
}

/// An end is told to the other side after the phone has its page, so what is expected is waited for.
const AGREE_WITHIN: Duration = Duration::from_secs(30);

/// The step, failed for each cluster that does not come to hold exactly what is expected. One that does not run
/// can't be asked.
pub async fn agree(lab: &Lab, step: Step, expected: Expected) -> Result<Step> {
    agree_within(AGREE_WITHIN, lab, step, expected).await
}

async fn agree_within(
    limit: Duration,
    lab: &Lab,
    mut step: Step,
    expected: Expected,
) -> Result<Step> {
    let (home, visiting) = (&lab.cluster(HOME)?.id, &visiting(lab)?.id);
    let began = Instant::now();
    for cluster in running(lab) {
        let wanted = expected.at(cluster.id.as_str(), home.as_str(), visiting.as_str());
        let mut seen = Holding::of(cluster).await?;
        while seen != wanted && began.elapsed() < limit {
            tokio::time::sleep(LOOK_AGAIN).await;
            seen = Holding::of(cluster).await?;
        }
        if seen != wanted {
            step = step.failed(format!(
                "{} holds {seen:?}, expected {wanted:?}",
                cluster.id
            ));
        }
    }
    Ok(step)
}

/// The step, failed when a cluster still owes another one the news of an end after a while.
pub async fn nothing_owed(lab: &Lab, mut step: Step) -> Result<Step> {
    let began = Instant::now();
    for cluster in running(lab) {
        let mut admin = cluster.admin().await?;
        let mut owed = admin.owed().await?.len();
        while owed > 0 && began.elapsed() < AGREE_WITHIN {
            tokio::time::sleep(LOOK_AGAIN).await;
            owed = admin.owed().await?.len();
        }
        if owed > 0 {
            step = step.failed(format!("{} still owes {owed} ends", cluster.id));
        }
    }
    Ok(step)
}

fn running(lab: &Lab) -> impl Iterator<Item = &Cluster> {
    let runs = |cluster: &&Cluster| cluster.member().is_ok_and(Member::is_running);
    lab.clusters.iter().filter(runs)
}

/// What each cluster holds, in words: its living sessions and how much of its pool.
pub async fn holdings(lab: &Lab) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for cluster in running(lab) {
        let mut admin = cluster.admin().await?;
        let sessions = admin.living().await?;
        let held = admin.held().await?.len();
        let mut parts: Vec<String> = sessions.iter().map(describe).collect();
        if parts.is_empty() {
            parts.push("no sessions".to_owned());
        }
        lines.push(format!(
            "{}: {}; {held} of {} base devices held",
            cluster.id,
            parts.join(", "),
            cluster.data.base_devices
        ));
    }
    Ok(lines)
}

fn describe(session: &pb::Session) -> String {
    let user = session.user_id.as_deref().unwrap_or(&session.login_name);
    let base = session
        .base_device
        .as_ref()
        .map(|b| format!(" holding {b}"))
        .unwrap_or_default();
    format!(
        "{} {} of {user} on {}{base} with {}",
        session.state, session.role, session.device, session.peer
    )
}

/// The step with what an operator of `cluster` reads about a link that is down; failed when that is nothing.
pub fn reason(mut step: Step, cluster: &ClusterId, peer: &pb::PeerStatus) -> Step {
    let outbound = peer.outbound.as_ref();
    let Some(reason) = outbound
        .and_then(|o| o.reason.as_deref())
        .filter(|r| !r.is_empty())
    else {
        let why = format!("{} says no reason of {}", cluster, peer.cluster_id);
        return step.failed(why);
    };
    step.notes
        .push(format!("{} says of {}: {reason}", cluster, peer.cluster_id));
    if let Some(hint) = outbound.and_then(|o| o.hint.as_deref()) {
        step.notes.push(format!("{cluster} advises: {hint}"));
    }
    step
}

/// The step, failed when the link is down for another reason than this refusal of a certificate.
pub fn refused_as(
    step: Step,
    cluster: &ClusterId,
    peer: &pb::PeerStatus,
    wanted: Rejection,
) -> Step {
    let outbound = peer.outbound.as_ref();
    match outbound.and_then(|o| o.rejection.as_deref()) {
        Some(word) if word == wanted.as_str() => step,
        other => step.failed(format!(
            "{cluster} says the rejection {other:?}, expected {wanted}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::login::LoginType,
        lab::{
            Spec,
            scenario::{Plan, carry_out},
        },
    };

    const SOON: Duration = Duration::from_millis(1);

    async fn is_left(lab: &Lab, expected: Expected) -> Step {
        let step = Step::done("test", Duration::ZERO);
        agree_within(SOON, lab, step, expected).await.unwrap()
    }

    /// Every expectation but the right one fails, whatever is really held.
    #[tokio::test]
    async fn only_what_is_really_held_is_agreed_to() {
        let mut lab = Lab::start(&Spec::default()).await.unwrap();
        let all = [
            Expected::Nothing,
            Expected::Local,
            Expected::Remote(1),
            Expected::Remote(2),
        ];
        for (plan, left) in [
            (Plan::LocalLogin, Expected::Local),
            (Plan::LocalLogout, Expected::Nothing),
            (Plan::RemoteLogin(LoginType::Uid), Expected::Remote(1)),
            (Plan::Logout("uid-logout"), Expected::Nothing),
        ] {
            let step = carry_out(&mut lab, plan).await;
            assert!(step.ok, "{step:?}");
            for expected in all {
                let step = is_left(&lab, expected).await;
                assert_eq!(
                    step.ok,
                    expected == left,
                    "{expected:?} after {plan:?}: {step:?}"
                );
            }
        }
        lab.shut_down().await;
    }

    /// What a local logout left is no business of the next step's: both of its rows are looked at.
    #[test]
    fn a_row_with_oneself_and_a_base_device_count() {
        let none = Expected::Nothing.at("tokyo", "berlin", "tokyo");
        let mut seen = none.clone();
        seen.base_devices = 1;
        assert_ne!(seen, none);
        let local = Expected::Local.at("tokyo", "berlin", "tokyo");
        assert_eq!(local.rows.len(), 2);
        assert_eq!(Expected::Local.at("berlin", "berlin", "tokyo"), none);
        let remote = Expected::Remote(2);
        assert_eq!(remote.at("berlin", "berlin", "tokyo").base_devices, 2);
        assert_eq!(remote.at("lima", "berlin", "tokyo"), none);
    }

    fn status(rejection: &str, reason: &str) -> pb::PeerStatus {
        pb::PeerStatus {
            outbound: Some(pb::OutboundStatus {
                rejection: Some(rejection.to_owned()),
                reason: Some(reason.to_owned()),
                ..pb::OutboundStatus::default()
            }),
            ..pb::PeerStatus::default()
        }
    }

    #[test]
    fn another_rejection_or_an_empty_reason_fails_the_step() {
        let berlin = &ClusterId::new("berlin").unwrap();
        let step = || Step::done("test", Duration::ZERO);
        let wanted = Rejection::UnknownIssuer;
        assert!(refused_as(step(), berlin, &status("unknown_issuer", "x"), wanted).ok);
        assert!(!refused_as(step(), berlin, &status("expired", "x"), wanted).ok);
        assert!(!refused_as(step(), berlin, &pb::PeerStatus::default(), wanted).ok);
        assert!(reason(step(), berlin, &status("expired", "it is over")).ok);
        assert!(!reason(step(), berlin, &status("expired", "")).ok);
        assert!(!reason(step(), berlin, &pb::PeerStatus::default()).ok);
    }
}
