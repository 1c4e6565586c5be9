//! Each phase of a rotation, each trouble with the peer, and each way on from there: it ends in agreement, and nobody
//! is locked out.

use std::collections::BTreeSet;

use emccd::{
    domain::version::Version,
    lab::{
        Cluster, Hosting, Lab, Spec,
        member::{Member, Versions},
    },
    wire::admin as pb,
};

use super::operator::{self, Named, accepted, shown, until, until_agreed, until_linked};
use crate::support::{binary, is_long};

/// When the trouble begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The peer is being told.
    Announced,
    /// The new certificate has just come to be shown.
    Active,
    /// Nothing stands in the way of the old one's end.
    BeforeRetire,
}

/// What is the matter with the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nothing. Where it is not to be waited for, its operator has to agree and takes their time.
    Linked,
    /// All its nodes are down, and come back.
    DownAndBack,
    /// All its nodes die, and start again.
    Restarting,
    /// One of its nodes stands still.
    Behind,
    /// Another node of it joins.
    Joining,
    /// It speaks 1.0: its operator adds and removes certificates by hand.
    Old,
}

/// How it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Each step is taken when its gate opens.
    GoOn,
    /// The new certificate is shown before the peer has said that it accepts it.
    Override,
    /// It is taken back.
    RollBack,
}

const PHASES: [Phase; 3] = [Phase::Announced, Phase::Active, Phase::BeforeRetire];
const ENDINGS: [Ending; 3] = [Ending::GoOn, Ending::Override, Ending::RollBack];
const TROUBLES: [Trouble; 6] = [
    Trouble::Linked,
    Trouble::DownAndBack,
    Trouble::Restarting,
    Trouble::Behind,
    Trouble::Joining,
    Trouble::Old,
];

/// All of them; in the short run each trouble with two, so that each phase is met with each ending.
fn cells() -> Vec<(Trouble, Phase, Ending)> {
    let mut cells = Vec::new();
    for (row, trouble) in TROUBLES.into_iter().enumerate() {
        for (column, phase) in PHASES.into_iter().enumerate() {
            for (turn, ending) in ENDINGS.into_iter().enumerate() {
                let number = 3 * column + turn;
                let is_chosen = number == (2 * row) % 9 || number == (2 * row + 3) % 9;
                if is_long() || is_chosen {
                    cells.push((trouble, phase, ending));
                }
            }
        }
    }
    cells
}

#[test]
fn the_short_run_meets_every_row_and_every_column() {
    let cells = cells();
    for trouble in TROUBLES {
        assert!(cells.iter().filter(|cell| cell.0 == trouble).count() >= 2);
    }
    for phase in PHASES {
        for ending in ENDINGS {
            let met = |cell: &&(Trouble, Phase, Ending)| cell.1 == phase && cell.2 == ending;
            assert!(cells.iter().find(met).is_some(), "{phase:?} {ending:?}");
        }
    }
}

/// The cluster whose first node rotates, and its peer of two nodes.
struct Stage {
    lab: Lab,
    /// What the cell is, for failures.
    cell: String,
}

impl Stage {
    fn berlin(&self) -> &Cluster {
        &self.lab.clusters[0]
    }

    /// The node that rotates.
    fn here(&self) -> &Member {
        &self.lab.clusters[0].members[0]
    }

    fn tokyo(&self) -> &Cluster {
        &self.lab.clusters[1]
    }

    async fn start(&mut self, node: usize, versions: &Versions) {
        let member = &mut self.lab.clusters[1].members[node];
        if !member.is_running() {
            member.start(versions).await.unwrap();
        }
    }

    async fn speak(&mut self, versions: &Versions) {
        for node in 0..2 {
            self.lab.clusters[1].members[node].stop().await;
            self.start(node, versions).await;
        }
        until_linked(&self.lab).await;
    }

    /// Whether tokyo's operator wants to be asked.
    async fn ask_first(&self, wanted: bool) {
        let policy = if wanted { "approve" } else { "auto" };
        let line = format!("cluster set berlin --accept-announcements {policy}");
        operator::type_at(self.tokyo().member().unwrap(), &line)
            .await
            .unwrap();
    }

    async fn begin(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Linked | Trouble::Old => {}
            Trouble::DownAndBack => {
                for node in 0..2 {
                    self.lab.clusters[1].members[node].stop().await;
                }
            }
            Trouble::Restarting => {
                for node in 0..2 {
                    self.lab.clusters[1].members[node].kill().await.unwrap();
                }
            }
            Trouble::Behind => self.tokyo().members[1].pause().unwrap(),
            Trouble::Joining => self.start(1, &Versions::default()).await,
        }
    }

    async fn end(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Linked | Trouble::Old | Trouble::Joining => {}
            Trouble::DownAndBack | Trouble::Restarting => {
                for node in 0..2 {
                    self.start(node, &Versions::default()).await;
                }
            }
            Trouble::Behind => self.tokyo().members[1].resume().unwrap(),
        }
    }

    /// What tokyo's operator does by hand for a certificate of berlin.
    async fn pin_by_hand(&self) {
        let pem = operator::next_certificate(self.here());
        let trust = pb::TrustMaterial {
            kind: "pinned".to_owned(),
            certificates: pem.into_bytes(),
        };
        let request = pb::AddTrustRequest {
            cluster_id: self.berlin().id.to_string(),
            trust: Some(trust),
            unrevoke: None,
        };
        self.tokyo()
            .admin()
            .await
            .unwrap()
            .add_trust(request)
            .await
            .unwrap();
    }

    /// What tokyo's operator removes by hand at the end: all but what berlin shows.
    async fn remove_by_hand(&self) {
        let mut keep = BTreeSet::new();
        for member in &self.berlin().members {
            keep.insert(shown(member).await);
        }
        for fingerprint in accepted(self.tokyo(), self.berlin()).await {
            if !keep.contains(&fingerprint) {
                let line = format!("trust remove berlin --fingerprint {fingerprint} --yes");
                // Refused for as long as a node has it on record that a link of it rests on the certificate.
                until(&self.cell, async || {
                    operator::type_at(self.tokyo().member().unwrap(), &line).await
                })
                .await;
            }
        }
    }

    /// Tokyo's operator takes what waits.
    async fn agree(&self) {
        let there = self.tokyo().member().unwrap();
        until(&self.cell, async || {
            operator::type_at(there, "trust accept berlin --yes").await
        })
        .await;
        self.ask_first(false).await;
    }

    /// Takes the trouble away where there is some, and what tokyo's operator has to do in it.
    async fn mend(&mut self, trouble: Trouble, going: &mut Going) {
        if std::mem::take(&mut going.in_trouble) {
            self.end(trouble).await;
        }
        if std::mem::take(&mut going.asks) {
            self.agree().await;
        }
        if std::mem::take(&mut going.by_hand) {
            self.pin_by_hand().await;
            operator::confirm(self.here(), "tokyo").await.unwrap();
        }
    }

    async fn activate(&mut self, trouble: Trouble, ending: Ending, going: &mut Going) {
        if ending == Ending::Override {
            match operator::activate(self.here(), Named::Nobody).await {
                Err(refused) => assert!(refused.contains("tokyo"), "{}: {refused}", self.cell),
                // A node that stands still for long counts as gone, and is not waited for.
                Ok(()) => {
                    assert_eq!(trouble, Trouble::Behind, "{}", self.cell);
                    return;
                }
            }
            operator::activate(self.here(), Named::Overridden("tokyo"))
                .await
                .unwrap();
            // Whoever was not waited for has still to catch up.
            let refused = operator::retire(self.here()).await.unwrap_err();
            assert!(refused.contains("tokyo"), "{}: {refused}", self.cell);
            going.by_hand = trouble == Trouble::Old;
            return;
        }
        if trouble == Trouble::Old {
            until(&self.cell, async || {
                match operator::activate(self.here(), Named::Nobody).await {
                    Err(said) if said.contains("by hand") => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
            self.pin_by_hand().await;
            operator::activate(self.here(), Named::Confirmed("tokyo"))
                .await
                .unwrap();
            return;
        }
        if going.in_trouble && matches!(trouble, Trouble::DownAndBack | Trouble::Restarting) {
            let refused = operator::activate(self.here(), Named::Nobody)
                .await
                .unwrap_err();
            assert!(refused.contains("tokyo"), "{}: {refused}", self.cell);
            self.mend(trouble, going).await;
        }
        until(&self.cell, async || {
            operator::activate(self.here(), Named::Nobody).await
        })
        .await;
    }

    async fn run(&mut self, trouble: Trouble, phase: Phase, ending: Ending) {
        self.cell = format!("{trouble:?}, {phase:?}, {ending:?}");
        let before = shown(self.here()).await;
        if trouble == Trouble::Joining {
            self.lab.clusters[1].members[1].stop().await;
        }
        let mut going = Going::default();
        if ending == Ending::Override {
            going.asks = matches!(trouble, Trouble::Linked | Trouble::Joining);
            if going.asks {
                self.ask_first(true).await;
            }
        }
        if phase == Phase::Announced || ending == Ending::Override && !going.asks {
            self.begin(trouble).await;
            going.in_trouble = true;
        }
        operator::announce(self.here()).await;
        if phase != Phase::Announced || ending != Ending::RollBack {
            self.activate(trouble, ending, &mut going).await;
        }
        if phase == Phase::BeforeRetire {
            self.mend(trouble, &mut going).await;
            let here = self.here();
            until(&self.cell, async || operator::may_retire(here).await).await;
        }
        if phase != Phase::Announced && !going.in_trouble {
            self.begin(trouble).await;
            going.in_trouble = true;
        }
        self.step_on(trouble, phase, ending, &mut going).await;
        self.mend(trouble, &mut going).await;
        self.finish(trouble, ending, &before).await;
    }

    /// The last step of the operator: while the trouble lasts where the machine allows it, otherwise after it.
    async fn step_on(&mut self, trouble: Trouble, phase: Phase, ending: Ending, going: &mut Going) {
        if ending == Ending::RollBack {
            operator::roll_back(self.here()).await.unwrap();
            return;
        }
        if phase != Phase::BeforeRetire {
            self.mend(trouble, going).await;
        }
        let here = self.here();
        until(&self.cell, async || operator::retire(here).await).await;
    }

    async fn finish(&mut self, trouble: Trouble, ending: Ending, before: &str) {
        let here = self.here();
        if trouble == Trouble::Old {
            let is_back = ending == Ending::RollBack;
            until(&self.cell, async || {
                let now = shown(here).await;
                if (now == before) == is_back {
                    Ok(())
                } else {
                    Err(now)
                }
            })
            .await;
            self.remove_by_hand().await;
        }
        until(&self.cell, async || operator::nothing_on_record(here)).await;
        let now = shown(here).await;
        assert_eq!(now == before, ending == Ending::RollBack, "{}", self.cell);
        until_linked(&self.lab).await;
        until_agreed(self.tokyo(), self.berlin(), &BTreeSet::new()).await;
        until_agreed(self.berlin(), self.tokyo(), &BTreeSet::new()).await;
        for cluster in &self.lab.clusters {
            for member in &cluster.members {
                until(&self.cell, async || operator::no_difference(member).await).await;
            }
        }
    }
}

/// What is to be mended on the way.
#[derive(Clone, Copy, Debug, Default)]
struct Going {
    /// The trouble lasts.
    in_trouble: bool,
    /// Tokyo's operator is asked, and has not answered.
    asks: bool,
    /// Tokyo's operator has to add the certificate, and has not yet.
    by_hand: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_phase_with_every_trouble_ends_in_agreement() {
    let lab = Lab::start(&Spec {
        nodes: 2,
        hosting: Hosting::Processes { binary: binary() },
        ..Spec::default()
    })
    .await
    .unwrap();
    operator::hurry(&lab).await;
    let mut stage = Stage {
        lab,
        cell: String::new(),
    };
    let mut is_old = false;
    for (trouble, phase, ending) in cells() {
        if trouble == Trouble::Old && !is_old {
            stage.speak(&Versions::up_to(Version::V1_0)).await;
            is_old = true;
        }
        stage.run(trouble, phase, ending).await;
    }
    stage.lab.shut_down().await;
}
