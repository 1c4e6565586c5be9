//! `cert rotate`: exchanging the nodes' certificates while peers go on trusting them.

use std::{collections::BTreeSet, path::Path};

use tokio::time::{Duration, Instant, sleep};

use crate::{
    cli::{
        args::{Global, Purpose, Rotate, RotateAnnounce, RotateTarget},
        client::{Client, answer, connect},
        confirm::confirm,
        failure::{Failure, Outcome},
        output::{Report, record, table, time},
        progress::Form,
        rotate_watch::Watch,
    },
    config::units::show_duration,
    wire::admin as pb,
};

/// How often the progress is asked for.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// Runs one of the verbs.
///
/// # Errors
/// What the daemon refuses: a gate that is shut names what holds it up.
pub async fn run(global: &Global, verb: Rotate) -> Outcome {
    match verb {
        Rotate::Status => {
            let mut client = connect(global).await?;
            let all = list(&mut client).await?;
            Ok(Report::new(status_text(&all), &all))
        }
        Rotate::Announce(args) => {
            let what = "cannot announce a new certificate";
            step(
                global,
                what,
                announcement(what, &args, false)?,
                Phases::Announced,
            )
            .await
        }
        Rotate::Run(args) => {
            let what = "cannot exchange the certificate";
            step(global, what, announcement(what, &args, true)?, Phases::Gone).await
        }
        Rotate::Activate(args) => {
            let what = "cannot activate the new certificate";
            let texts = |ids: &[crate::domain::ids::ClusterId]| {
                ids.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            if !args.overridden.is_empty() {
                ask(
                    &args.target,
                    what,
                    &format!(
                        "{} can't call this cluster until the link of this side has brought the new certificate. Go on \
                         without?",
                        texts(&args.overridden).join(", ")
                    ),
                )?;
            }
            let request = pb::StepRotationRequest {
                overridden: texts(&args.overridden),
                confirmed: texts(&args.confirmed),
                ..request("activate", &args.target)
            };
            step(global, what, request, Phases::Shown).await
        }
        Rotate::Confirm(args) => {
            let request = pb::StepRotationRequest {
                confirmed: args.peers.iter().map(ToString::to_string).collect(),
                ..request("confirm", &args.target)
            };
            step(global, "cannot take that on record", request, Phases::Any).await
        }
        Rotate::Retire(args) => {
            let what = "cannot retire the old certificate";
            ask(
                &args.target,
                what,
                "There is no way back to the old certificate. Retire it?",
            )?;
            step(global, what, request("retire", &args.target), Phases::Gone).await
        }
        Rotate::Forget(args) => {
            let what = "cannot forget the rotations of the node";
            if !args.yes {
                confirm(
                    what,
                    &format!(
                        "{} is gone for good? If it comes back it shows the certificate in its files. Forget its rotations?",
                        args.nodes.join(", ")
                    ),
                )?;
            }
            let request = pb::StepRotationRequest {
                step: "forget".to_owned(),
                nodes: args.nodes.clone(),
                purpose: "federation".to_owned(),
                ..pb::StepRotationRequest::default()
            };
            let mut client = connect(global).await?;
            let done = answer(what, client.step_rotation(request).await)?.rotations;
            Ok(Report::new(forgotten_text(&done), &done))
        }
        Rotate::Rollback(args) => {
            let what = "cannot go back to the old certificate";
            ask(
                &args.target,
                what,
                "The new certificate and its key are removed. Go back to the old one?",
            )?;
            step(
                global,
                what,
                request("rollback", &args.target),
                Phases::Gone,
            )
            .await
        }
    }
}

/// What `--wait` waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phases {
    /// Nothing.
    Any,
    /// Every peer has it, or has said why not.
    Announced,
    /// The node shows it, and nothing rests on the one that goes.
    Shown,
    /// Nothing is left to be done.
    Gone,
}

fn request(step: &str, target: &RotateTarget) -> pb::StepRotationRequest {
    pb::StepRotationRequest {
        step: step.to_owned(),
        nodes: target.node.clone(),
        purpose: match target.purpose {
            Purpose::Federation => "federation",
            Purpose::FederationClient => "federation-client",
            Purpose::Phone => "phone",
        }
        .to_owned(),
        ..pb::StepRotationRequest::default()
    }
}

fn announcement(
    what: &str,
    args: &RotateAnnounce,
    automatic: bool,
) -> Outcome<pb::StepRotationRequest> {
    // The daemon's working directory is another one.
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .map(|path| path.to_string_lossy().into_owned())
            .map_err(|cause| Failure::new(what, cause.to_string(), "give the whole path"))
    };
    Ok(pb::StepRotationRequest {
        key: args.key.map(|key| key.as_str().to_owned()),
        days: args.days,
        names: args.name.clone(),
        certificate_file: args.from.first().map(|file| absolute(file)).transpose()?,
        issuer_files: args
            .from
            .iter()
            .skip(1)
            .map(|file| absolute(file))
            .collect::<Outcome<_>>()?,
        may_lack_issuers: args.without_issuers,
        key_file: args.key_file.as_deref().map(absolute).transpose()?,
        automatic,
        ..request("announce", &args.target)
    })
}

fn ask(target: &RotateTarget, what: &str, question: &str) -> Outcome<()> {
    if target.yes {
        return Ok(());
    }
    confirm(what, question)
}

async fn list(client: &mut Client) -> Outcome<Vec<pb::Rotation>> {
    let asked = client.list_rotations(pb::ListRotationsRequest {}).await;
    Ok(answer("cannot show the rotations", asked)?.rotations)
}

async fn step(
    global: &Global,
    what: &str,
    request: pb::StepRotationRequest,
    until: Phases,
) -> Outcome {
    let mut client = connect(global).await?;
    let done = answer(what, client.step_rotation(request).await)?.rotations;
    let mut now = done.clone();
    if let Some(wait) = global.wait {
        let end = Instant::now() + wait;
        let mut watch = Watch::new(Form::of(global));
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        let mut listens = true;
        loop {
            let all = list(&mut client).await?;
            let is_one = |it: &&pb::Rotation| {
                done.iter()
                    .any(|d| d.node == it.node && d.purpose == it.purpose)
            };
            now = all.iter().filter(is_one).cloned().collect();
            watch.show(&now);
            if now.iter().all(|it| has_come(it, until)) {
                break;
            }
            if Instant::now() >= end {
                return Err(Failure::new(
                    format!("it is not done after {}", show_duration(wait)),
                    status_text(&now).trim_end(),
                    "it goes on without being watched: emccd cert rotate status",
                ));
            }
            tokio::select! {
                () = sleep(LOOK_AGAIN) => {}
                told = &mut interrupted, if listens => {
                    // Where the signal can't be waited for there is nothing to be told of a second time.
                    listens = false;
                    if told.is_err() {
                        continue;
                    }
                    drop(watch);
                    let note = "not watched any more; it goes on by itself: emccd cert rotate status";
                    let report = Report::new(status_text(&now), &now).with_note(note.to_owned());
                    return Ok(report.failing());
                }
            }
        }
    }
    Ok(Report::new(status_text(&now), &now))
}

fn has_come(it: &pb::Rotation, until: Phases) -> bool {
    match until {
        Phases::Any => true,
        Phases::Announced => {
            it.phase != "requested" && it.peers.iter().all(|peer| peer.outcome != "silent")
        }
        Phases::Shown => it.phase == "active" && it.shown == it.new && it.blockers.is_empty(),
        Phases::Gone => false,
    }
}

fn forgotten_text(done: &[pb::Rotation]) -> String {
    let names: Vec<_> = done
        .iter()
        .map(|it| format!("{}/{}", it.node, it.purpose))
        .collect();
    let told: BTreeSet<_> = done
        .iter()
        .flat_map(|it| it.old.iter().chain(&it.new))
        .collect();
    let mut text = format!("forgotten: {}", names.join(", "));
    if !told.is_empty() {
        text += "\npeers may go on accepting these, until somebody types there: emccd trust remove ID --fingerprint HEX";
        for fingerprint in told {
            text += &format!("\n  {fingerprint}");
        }
    }
    text
}

fn status_text(all: &[pb::Rotation]) -> String {
    if all.is_empty() {
        return "no certificate is being exchanged\n\nnext: emccd cert rotate announce".to_owned();
    }
    let texts: Vec<_> = all.iter().map(one_text).collect();
    texts.join("\n\n")
}

fn one_text(it: &pb::Rotation) -> String {
    let mut fields = vec![
        ("certificate", format!("{}/{}", it.node, it.purpose)),
        ("phase", format!("{} since {}", it.phase, time(&it.since))),
    ];
    fields.extend(it.old.clone().map(|old| ("old", old)));
    fields.extend(it.new.clone().map(|new| ("new", new)));
    fields.extend(it.shown.clone().map(|shown| ("shown", shown)));
    if it.automatic {
        fields.push(("goes on", "by itself".to_owned()));
    }
    fields.extend(it.problem.clone().map(|problem| ("problem", problem)));
    let mut text = record(&fields);
    if !it.peers.is_empty() {
        let rows = it.peers.iter().map(|peer| {
            [
                peer.cluster_id.clone(),
                peer.outcome.clone(),
                peer.word.clone().unwrap_or_default(),
                peer.detail.clone(),
            ]
        });
        text += "\n\n";
        text += &table(["PEER", "HAS IT", "YOUR WORD", "WHY"], rows.collect());
    }
    for blocker in &it.blockers {
        text += &format!("\nheld up: {blocker}");
    }
    for next in it.next.iter().flat_map(|next| next.lines()) {
        text += &format!("\nnext: {next}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation() -> pb::Rotation {
        pb::Rotation {
            node: "berlin-1".to_owned(),
            purpose: "federation".to_owned(),
            phase: "announced".to_owned(),
            old: Some("AA".to_owned()),
            new: Some("BB".to_owned()),
            shown: Some("AA".to_owned()),
            since: "2026-01-01T00:00:00.000Z".to_owned(),
            peers: vec![pb::RotationPeer {
                cluster_id: "tokyo".to_owned(),
                outcome: "waiting".to_owned(),
                detail: "an operator has to agree".to_owned(),
                ..pb::RotationPeer::default()
            }],
            blockers: vec!["tokyo keeps it until its operator agrees".to_owned()],
            next: Some("emccd trust accept US".to_owned()),
            ..pb::Rotation::default()
        }
    }

    #[test]
    fn a_rotation_tells_how_far_each_peer_is_and_what_to_do() {
        let expected = "\
certificate  berlin-1/federation
phase        announced since 2026-01-01 00:00:00Z
old          AA
new          BB
shown        AA

PEER   HAS IT   YOUR WORD  WHY
tokyo  waiting  -          an operator has to agree
held up: tokyo keeps it until its operator agrees
next: emccd trust accept US";
        let told = status_text(&[rotation()]);
        let told: Vec<_> = told.lines().map(str::trim_end).collect();
        assert_eq!(told.join("\n"), expected);
        assert!(status_text(&[]).contains("next: emccd cert rotate announce"));
    }

    #[test]
    fn waiting_ends_where_the_verb_leads() {
        let mut it = rotation();
        assert!(has_come(&it, Phases::Announced) && !has_come(&it, Phases::Gone));
        it.peers[0].outcome = "silent".to_owned();
        assert!(!has_come(&it, Phases::Announced) && has_come(&it, Phases::Any));
        it.phase = "active".to_owned();
        it.blockers.clear();
        assert!(!has_come(&it, Phases::Shown), "it is not shown yet");
        it.shown = it.new.clone();
        assert!(has_come(&it, Phases::Shown));
    }
}
