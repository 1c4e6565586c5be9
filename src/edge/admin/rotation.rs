//! Rotations of the nodes' certificates, as operators see and drive them.
//!
//! A command for several nodes is one transaction: all of them take the step, or none does and all that holds it up is
//! told.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    clock::Timestamp,
    domain::{
        ids::ClusterId,
        purpose::Purpose,
        rotation::{
            Name, Outcome, Phase, Told,
            gates::{self, Blocker, Named},
        },
    },
    edge::admin::{
        error::Error,
        roles::Actor,
        rotation_next::{self, Held},
    },
    store::{
        Store, Transaction,
        audit::{self, Action},
        nodes,
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
    Forget,
}

impl Verb {
    fn read(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "announce" => Self::Announce,
            "activate" => Self::Activate,
            "confirm" => Self::Confirm,
            "retire" => Self::Retire,
            "rollback" => Self::RollBack,
            "forget" => Self::Forget,
            _ => {
                return Err(Error::invalid(
                    "the step",
                    "announce, activate, confirm, retire, rollback or forget",
                ));
            }
        })
    }
}

/// All rotations that are under way.
///
/// # Errors
/// [`Error::Store`].
pub(super) async fn list(store: &Store, us: &ClusterId) -> Result<Vec<pb::Rotation>, Error> {
    let us = us.clone();
    store
        .read(move |tx: &mut dyn Transaction| {
            let mut all = Vec::new();
            for row in rotations::all(tx)? {
                all.push(view(tx, &us, &row)?);
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
    (us, own): (&ClusterId, &str),
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
    let (us, own) = (us.clone(), own.to_owned());
    store
        .write(move |tx: &mut dyn Transaction| {
            if verb == Verb::Forget {
                let rotations = forget(tx, &us, &request.nodes, &doer)?;
                return Ok(pb::StepRotationResponse { rotations });
            }
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
                    Verb::Forget => Ok(None),
                };
                match outcome {
                    Ok(row) => done.extend(row),
                    Err(rotation::Error::Shut { name, blockers }) => {
                        let row = rotations::get(tx, &name)?;
                        let missing = || rotation::Error::Missing(name.clone());
                        let row = row.ok_or_else(missing).map_err(gone)?;
                        shut.push((row, blockers));
                    }
                    Err(error) => return Err(gone(error)),
                }
            }
            if !shut.is_empty() {
                let all = request.nodes.iter().any(|node| node == "all");
                return Err(refusal(verb, &us, all, &shut));
            }
            let mut views = Vec::new();
            for row in &done {
                views.push(view(tx, &us, row)?);
            }
            Ok(pb::StepRotationResponse { rotations: views })
        })
        .await
}

fn gone(error: rotation::Error) -> Error {
    match error {
        rotation::Error::Store(error) => error.into(),
        rotation::Error::Missing(name) | rotation::Error::Shut { name, .. } => Error::missing(
            format!("rotation of {name} under way"),
            "emccd cert rotate status",
        ),
    }
}

fn refusal(verb: Verb, us: &ClusterId, all: bool, shut: &[(Row, Vec<Blocker>)]) -> Error {
    let reasons = shut.iter().flat_map(|(row, blockers)| {
        blockers
            .iter()
            .map(move |blocker| format!("{}: {blocker}", row.name))
    });
    // What leads on goes by where each of them stands.
    let mut by_phase: BTreeMap<Phase, Vec<&(Row, Vec<Blocker>)>> = BTreeMap::new();
    for held in shut {
        by_phase
            .entry(held.0.rotation.phase)
            .or_default()
            .push(held);
    }
    let is_one = by_phase.len() == 1;
    let next = by_phase.into_iter().filter_map(|(phase, held)| {
        let (first, _) = held.first()?;
        let blockers: Vec<_> = held.iter().flat_map(|(_, blockers)| blockers).collect();
        let held = Held {
            us,
            nodes: match all && is_one {
                true => vec!["all"],
                false => held.iter().map(|(row, _)| &*row.name.node).collect(),
            },
            purpose: first.name.purpose,
            phase,
            new: first.rotation.new.filter(|_| held.len() == 1),
        };
        Some(rotation_next::next(&held, &blockers))
    });
    let next: Vec<_> = next.collect();
    Error::listed(
        format!("the certificate can't be {}", past(verb)),
        reasons,
        0,
        next.join("\n"),
    )
}

/// Forgets what is on record of the identities of nodes that are gone for good.
fn forget(
    tx: &mut dyn Transaction,
    us: &ClusterId,
    wanted: &[String],
    doer: &Doer,
) -> Result<Vec<pb::Rotation>, Error> {
    if wanted.is_empty() || wanted.iter().any(|node| node == "all") {
        return Err(Error::invalid("the node", "named, each one by itself"));
    }
    let living = nodes::all(tx)?;
    let mut forgotten = Vec::new();
    for node in wanted {
        let rows = rotations::all(tx)?.into_iter();
        let rows: Vec<_> = rows.filter(|row| row.name.node == *node).collect();
        if rows.is_empty() {
            return Err(Error::missing(
                format!("rotation of {node} on record"),
                "emccd cert rotate status",
            ));
        }
        if living.iter().any(|living| living.run.node == *node) {
            return Err(Error::refused(
                format!("{node} shows signs of life, and goes on with its rotations by itself"),
                format!(
                    "to end one: emccd cert rotate rollback --node {node}; if it is gone, a moment later: emccd cert rotate \
                     forget {node}"
                ),
            ));
        }
        for row in rows {
            forgotten.push(view(tx, us, &row)?);
            rotations::remove(tx, &row.name)?;
            let entry = audit::Entry {
                at: doer.at,
                actor: doer.actor.clone(),
                action: Action::CertForget,
                subject: row.name.to_string(),
                outcome: format!("its node is gone; it was {}", row.rotation.phase),
                reference: None,
            };
            audit::append(tx, &entry)?;
        }
    }
    Ok(forgotten)
}

const fn past(verb: Verb) -> &'static str {
    match verb {
        Verb::Announce => "announced",
        Verb::Activate => "activated",
        Verb::Confirm => "confirmed",
        Verb::Retire => "retired",
        Verb::RollBack => "rolled back",
        Verb::Forget => "forgotten",
    }
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
        issuers: request.issuer_files.clone(),
        may_lack_issuers: request.may_lack_issuers,
    })
}

fn view(tx: &mut dyn Transaction, us: &ClusterId, row: &Row) -> Result<pb::Rotation, Error> {
    let peers = rotations::told(tx, &row.name)?;
    let rotation = &row.rotation;
    let blockers = match rotation.phase {
        Phase::Announced => gates::may_activate(rotation, &peers, &Named::default()),
        Phase::Active => gates::may_retire(&row.name, rotation, &peers),
        Phase::Requested | Phase::Retired | Phase::RollingBack => Vec::new(),
    };
    let text = |fingerprint: &[u8; 32]| fingerprint_text(fingerprint);
    let held = Held::of(us, &row.name, rotation.phase, rotation.new);
    let next_step = match rotation.phase {
        _ if rotation.automatic && blockers.is_empty() => None,
        Phase::Announced if blockers.is_empty() => Some(held.command("activate")),
        Phase::Active if blockers.is_empty() => Some(held.command("retire")),
        Phase::Announced | Phase::Active => {
            let blockers: Vec<_> = blockers.iter().collect();
            Some(rotation_next::next(&held, &blockers))
        }
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
