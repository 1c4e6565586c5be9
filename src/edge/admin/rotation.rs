//! Rotations of the nodes' certificates, as operators see and drive them.
//!
//! A command for several nodes is one transaction: all of them take the step, or none does and all that holds it up is
//! told.

use std::collections::BTreeSet;

use crate::{
    clock::Timestamp,
    domain::{
        ids::ClusterId,
        purpose::Purpose,
        rotation::{
            Name, Outcome, Phase, Told,
            gates::{self, Blocker, Named, Why},
        },
    },
    edge::admin::{error::Error, roles::Actor},
    store::{
        Store, Transaction, nodes,
        rotations::{self, Recipe, Row},
    },
    trust::{
        certificate::fingerprint_text,
        rotation::{self, Doer},
    },
    wire::admin as pb,
};

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Announce,
    Activate,
    Confirm,
    Retire,
    RollBack,
}

impl Verb {
    fn read(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "announce" => Self::Announce,
            "activate" => Self::Activate,
            "confirm" => Self::Confirm,
            "retire" => Self::Retire,
            "rollback" => Self::RollBack,
            _ => {
                return Err(Error::invalid(
                    "the step",
                    "announce, activate, confirm, retire or rollback",
                ));
            }
        })
    }
}

/// All rotations that are under way.
///
/// # Errors
/// [`Error::Store`].
pub(super) async fn list(store: &Store) -> Result<Vec<pb::Rotation>, Error> {
    store
        .read(|tx: &mut dyn Transaction| {
            let mut all = Vec::new();
            for row in rotations::all(tx)? {
                all.push(view(tx, &row)?);
            }
            Ok(all)
        })
        .await
}

/// Takes a step with the identities of one node or of several.
///
/// # Errors
/// [`Error::Listed`] with everything that holds it up, [`Error::Missing`] when there is no such node or rotation.
pub(super) async fn step(
    store: &Store,
    own: &str,
    request: pb::StepRotationRequest,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::StepRotationResponse, Error> {
    let verb = Verb::read(&request.step)?;
    let purpose = Purpose::from_name(&request.purpose)
        .ok_or_else(|| Error::invalid("the purpose", "federation, federation-client or phone"))?;
    let named = Named {
        confirmed: ids(&request.confirmed)?,
        overridden: ids(&request.overridden)?,
    };
    let recipe = recipe(&request)?;
    let doer = Doer {
        actor: actor.to_string(),
        at: now,
    };
    let own = own.to_owned();
    store
        .write(move |tx: &mut dyn Transaction| {
            let names = names(tx, &own, &request.nodes, purpose, verb)?;
            let mut shut = Vec::new();
            let mut done = Vec::new();
            for name in &names {
                let outcome = match verb {
                    Verb::Announce => {
                        rotation::announce(tx, name, &recipe, request.automatic, &doer).map(Some)
                    }
                    Verb::Activate => rotation::activate(tx, name, &named, &doer).map(Some),
                    Verb::Confirm => rotation::confirm(tx, name, &named, &doer).map(Some),
                    Verb::Retire => rotation::retire(tx, name, &doer).map(Some),
                    Verb::RollBack => rotation::roll_back(tx, name, &doer),
                };
                match outcome {
                    Ok(row) => done.extend(row),
                    Err(rotation::Error::Shut { name, blockers }) => shut.push((name, blockers)),
                    Err(rotation::Error::Missing(name)) => {
                        return Err(Error::missing(
                            format!("rotation of {name} under way"),
                            "emccd cert rotate status",
                        ));
                    }
                    Err(rotation::Error::Store(error)) => return Err(error.into()),
                }
            }
            if !shut.is_empty() {
                return Err(refusal(verb, &shut));
            }
            let mut views = Vec::new();
            for row in &done {
                views.push(view(tx, row)?);
            }
            Ok(pb::StepRotationResponse { rotations: views })
        })
        .await
}

fn refusal(verb: Verb, shut: &[(Name, Vec<Blocker>)]) -> Error {
    let reasons = shut.iter().flat_map(|(name, blockers)| {
        blockers
            .iter()
            .map(move |blocker| format!("{name}: {blocker}"))
    });
    let all: Vec<_> = shut.iter().flat_map(|(_, blockers)| blockers).collect();
    Error::listed(
        format!("the certificate can't be {}", past(verb)),
        reasons,
        0,
        next(&all),
    )
}

const fn past(verb: Verb) -> &'static str {
    match verb {
        Verb::Announce => "announced",
        Verb::Activate => "activated",
        Verb::Confirm => "confirmed",
        Verb::Retire => "retired",
        Verb::RollBack => "rolled back",
    }
}

/// The command that goes on from here.
fn next(blockers: &[&Blocker]) -> String {
    let of_peers = |wanted: &[Why]| {
        let named = blockers.iter().filter_map(|blocker| match blocker {
            Blocker::Peer { cluster, why, .. } if wanted.contains(why) => Some(cluster.as_str()),
            _ => None,
        });
        named
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    };
    let manual = of_peers(&[Why::Manual]);
    if let [peer, ..] = manual[..] {
        return format!(
            "give the operator of {peer} the new certificate (identities/PURPOSE-SHA256.pem beside the configured one), who \
             types: emccd trust add US --pin FILE; then here: emccd cert rotate confirm {peer}"
        );
    }
    let waiting = of_peers(&[Why::Waiting]);
    if let [peer, ..] = waiting[..] {
        return format!("the operator of {peer} types: emccd trust accept US; then try again");
    }
    let behind = of_peers(&[Why::Silent, Why::Refused]);
    if let [peer, ..] = behind[..] {
        return format!(
            "emccd cluster status tells what is wrong with the link; to go on without it: emccd cert rotate activate \
             --override {peer}"
        );
    }
    if blockers.iter().any(|b| {
        matches!(
            b,
            Blocker::InUse(_) | Blocker::Unreported | Blocker::NotShown
        )
    }) {
        return "connections begin anew by themselves within certificate-drain-time: emccd cert rotate status shows them"
            .to_owned();
    }
    "emccd cert rotate status".to_owned()
}

fn names(
    tx: &mut dyn Transaction,
    own: &str,
    wanted: &[String],
    purpose: Purpose,
    verb: Verb,
) -> Result<Vec<Name>, Error> {
    let name = |node: &str| Name {
        node: node.to_owned(),
        purpose,
    };
    if wanted.is_empty() {
        return Ok(vec![name(own)]);
    }
    let known: BTreeSet<String> = nodes::all(tx)?
        .into_iter()
        .map(|node| node.run.node)
        .collect();
    if wanted.iter().any(|node| node == "all") {
        let under_way = rotations::all(tx)?.into_iter().map(|row| row.name);
        let under_way: Vec<_> = under_way.filter(|name| name.purpose == purpose).collect();
        return match verb {
            Verb::Announce => Ok(known.iter().map(|node| name(node)).collect()),
            _ if under_way.is_empty() => Err(Error::missing(
                format!("rotation of a {purpose} certificate under way"),
                "emccd cert rotate status",
            )),
            _ => Ok(under_way),
        };
    }
    let under_way: BTreeSet<_> = rotations::all(tx)?
        .into_iter()
        .map(|row| row.name.node)
        .collect();
    for node in wanted {
        if !known.contains(node) && !under_way.contains(node) {
            return Err(Error::missing(
                format!("node {node}"),
                "emccd cluster status",
            ));
        }
    }
    Ok(wanted.iter().map(|node| name(node)).collect())
}

fn ids(texts: &[String]) -> Result<BTreeSet<ClusterId>, Error> {
    let ids = texts.iter().map(|text| {
        ClusterId::new(text.as_str()).map_err(|_| {
            Error::invalid("the cluster ID", "1 to 64 characters of A-Z a-z 0-9 . _ -")
        })
    });
    ids.collect()
}

fn recipe(request: &pb::StepRotationRequest) -> Result<Recipe, Error> {
    let key = request.key.as_deref();
    if key.is_some_and(|key| !matches!(key, "p256" | "rsa")) {
        return Err(Error::invalid("the kind of key", "p256 or rsa"));
    }
    if request
        .days
        .is_some_and(|days| !(1..=3_650).contains(&days))
    {
        return Err(Error::invalid("the days", "1 to 3650"));
    }
    let files = match (&request.certificate_file, &request.key_file) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        _ => return Err(Error::invalid("the files", "a certificate and its key")),
    };
    Ok(Recipe {
        key: key.map(str::to_owned),
        days: request.days,
        names: request.names.clone(),
        files,
    })
}

fn view(tx: &mut dyn Transaction, row: &Row) -> Result<pb::Rotation, Error> {
    let peers = rotations::told(tx, &row.name)?;
    let rotation = &row.rotation;
    let blockers = match rotation.phase {
        Phase::Announced => gates::may_activate(rotation, &peers, &Named::default()),
        Phase::Active => gates::may_retire(&row.name, rotation, &peers),
        Phase::Requested | Phase::Retired | Phase::RollingBack => Vec::new(),
    };
    let text = |fingerprint: &[u8; 32]| fingerprint_text(fingerprint);
    let next_step = match rotation.phase {
        _ if rotation.automatic && blockers.is_empty() => None,
        Phase::Announced if blockers.is_empty() => Some("emccd cert rotate activate".to_owned()),
        Phase::Active if blockers.is_empty() => Some("emccd cert rotate retire".to_owned()),
        Phase::Announced | Phase::Active => Some(next(&blockers.iter().collect::<Vec<_>>())),
        Phase::Requested | Phase::Retired | Phase::RollingBack => None,
    };
    Ok(pb::Rotation {
        node: row.name.node.clone(),
        purpose: row.name.purpose.to_string(),
        phase: rotation.phase.to_string(),
        old: rotation.old.as_ref().map(text),
        new: rotation.new.as_ref().map(text),
        shown: rotation.shown.as_ref().map(text),
        in_use: rotation.in_use.clone().unwrap_or_default(),
        automatic: rotation.automatic,
        problem: row.problem.clone(),
        since: row.since.to_string(),
        peers: peers.iter().map(|told| peer(row, told)).collect(),
        blockers: blockers.iter().map(ToString::to_string).collect(),
        next: next_step,
    })
}

fn peer(row: &Row, told: &Told) -> pb::RotationPeer {
    let Told { cluster, progress } = told;
    let is_current = progress.sequence == row.rotation.sequence;
    let outcome = match progress.outcome {
        // What it has said to something else says nothing of this.
        Outcome::Loaded | Outcome::Waiting | Outcome::Refused if !is_current => Outcome::Silent,
        outcome => outcome,
    };
    pb::RotationPeer {
        cluster_id: cluster.to_string(),
        outcome: outcome.as_str().to_owned(),
        detail: progress.detail.clone(),
        word: progress.word.map(|word| word.as_str().to_owned()),
        accepts: progress.accepts(&row.rotation),
    }
}
