//! `cluster invite` and `cluster join`: two clusters that are strangers become peers.
//!
//! An invitation is printed once, on standard output, and read from standard input or a file: never from the command
//! line, which every process of the machine can read. What goes on meanwhile is told on standard error.

use std::{
    fs::File,
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::Path,
    time::Duration,
};

use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::{
    cli::{
        args::{ClusterInvite, ClusterJoin, Global, PairingVerbs},
        client::{Client, answer, connect},
        cluster::shown,
        confirm::confirm,
        failure::{Failure, Outcome},
        output::{Format, Report, clean, record, table, time},
    },
    domain::pairing::Side,
    pairing::token::{MAX_CHARS, Token},
    wire::admin as pb,
};

/// Runs `cluster invite`.
///
/// # Errors
/// What the daemon refuses, and what the operator does not confirm.
pub async fn invite(global: &Global, args: ClusterInvite) -> Outcome {
    let waits = !args.verbs.no_wait;
    if let Some(done) = other_verbs(global, Side::Inviting, &args.verbs).await {
        return done;
    }
    if waits && Format::of(global) == Format::Json {
        return Err(Failure::usage(
            "cannot invite",
            "what is waited for and the invitation itself are no one document",
            "add --no-wait; later: emccd cluster invite --list --json, and --confirm ID",
        ));
    }
    let mut client = connect(global).await?;
    let asked = client.invite_cluster(pb::InviteClusterRequest {
        minutes: args.minutes,
        addresses: args.address,
        name: args.name,
    });
    let mut invited = answer("cannot invite", asked.await)?;
    let pairing = invited.pairing.clone().unwrap_or_default();
    let text = Zeroizing::new(std::mem::take(&mut invited.invitation_secret));
    if !waits {
        let json = serde_json::json!({ "invitation": *text, "pairing": pairing });
        tell(&handed_over(&pairing));
        return Ok(Report::new(text.as_str(), &json));
    }
    let printed = writeln!(io::stdout().lock(), "{}", *text);
    drop(text);
    printed.map_err(|cause| {
        Failure::from_error(
            "cannot print the invitation",
            &cause,
            "check where standard output goes",
        )
    })?;
    tell(&handed_over(&pairing));
    tell("Waiting for it to be used. Ctrl-C ends the waiting, not the invitation.");
    see_through(&mut client, pairing, &args.verbs).await
}

/// Runs `cluster join`.
///
/// # Errors
/// What the daemon refuses, and what the operator does not confirm.
pub async fn join(global: &Global, args: ClusterJoin) -> Outcome {
    if let Some(done) = other_verbs(global, Side::Joining, &args.verbs).await {
        return done;
    }
    let text = read_invitation(args.token_file.as_deref())?;
    let token = Token::read(&text).map_err(|cause| {
        Failure::from_error(
            CANNOT_JOIN,
            &cause,
            "paste the whole line that emccd cluster invite printed",
        )
    })?;
    tell(&token_text(&token));
    let mut client = connect(global).await?;
    let asked = client.join_cluster(pb::JoinClusterRequest {
        invitation_secret: text.to_string(),
        addresses: args.address,
        name: args.name,
    });
    drop(text);
    let pairing = answer(CANNOT_JOIN, asked.await)?.pairing;
    let pairing = pairing.unwrap_or_default();
    if args.verbs.no_wait {
        let text = format!("{}\n\n{}", pairing_text(&pairing), how_to_confirm(&pairing));
        return Ok(Report::new(text, &pairing));
    }
    see_through(&mut client, pairing, &args.verbs).await
}

/// What is done with pairings that are there already.
async fn other_verbs(global: &Global, side: Side, verbs: &PairingVerbs) -> Option<Outcome> {
    if verbs.list {
        return Some(list(global, side).await);
    }
    if let Some(id) = &verbs.cancel {
        return Some(cancel(global, side, id.to_string()).await);
    }
    let id = verbs.confirm.as_ref()?.to_string();
    let confirmed = async {
        let mut client = connect(global).await?;
        let pairing = get(&mut client, side, id, None, Duration::ZERO).await?;
        see_through(&mut client, pairing, verbs).await
    };
    Some(confirmed.await)
}

async fn list(global: &Global, side: Side) -> Outcome {
    let mut client = connect(global).await?;
    let asked = client.list_pairings(pb::ListPairingsRequest {
        side: side.as_str().to_owned(),
    });
    let pairings = answer("cannot list the invitations", asked.await)?.pairings;
    Ok(Report::new(list_text(&pairings), &pairings))
}

async fn cancel(global: &Global, side: Side, id: String) -> Outcome {
    let mut client = connect(global).await?;
    let asked = client.cancel_pairing(pb::CancelPairingRequest {
        side: side.as_str().to_owned(),
        id,
    });
    let pairing = answer("cannot end it", asked.await)?.pairing;
    let pairing = pairing.unwrap_or_default();
    let text = format!(
        "invitation {} is {}; nothing of it stays",
        pairing.id, pairing.state
    );
    Ok(Report::new(text, &pairing))
}

async fn get(
    client: &mut Client,
    side: Side,
    id: String,
    known_state: Option<String>,
    wait: Duration,
) -> Outcome<pb::Pairing> {
    let asked = client.get_pairing(pb::GetPairingRequest {
        side: side.as_str().to_owned(),
        id,
        known_state,
        wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
    });
    let pairing = answer("cannot see how it stands", asked.await)?.pairing;
    Ok(pairing.unwrap_or_default())
}

/// Waits until there are words, has them compared, and waits for the other operator.
async fn see_through(
    client: &mut Client,
    mut pairing: pb::Pairing,
    verbs: &PairingVerbs,
) -> Outcome {
    pairing = settled(client, pairing, &["open", "proven"]).await?;
    if pairing.state == "told" && pairing.confirmed_by.is_none() {
        if pairing.is_peer && !verbs.update {
            tell(&pairing_text(&pairing));
            return Err(Failure::new(
                CANNOT_PAIR,
                format!("{} is a peer already", pairing.cluster_id),
                format!(
                    "to trust what it shows now as well: {} --confirm {} --update; to end it: --cancel {}",
                    command(&pairing),
                    pairing.id,
                    pairing.id
                ),
            ));
        }
        pairing = compared(client, pairing, verbs).await?;
    }
    if verbs.no_wait && matches!(&*pairing.state, "told" | "committed" | "done") {
        let text = match &*pairing.state {
            "told" => format!(
                "confirmed on this side\n\nnext: {} --list shows when the other operator has",
                command(&pairing)
            ),
            _ => format!(
                "{} is a peer now\n\nnext: emccd cluster status",
                pairing.cluster_id
            ),
        };
        return Ok(Report::new(text, &pairing));
    }
    if pairing.state == "told" {
        tell("Confirmed on this side. Waiting for the other operator.");
        pairing = settled(client, pairing, &["told"]).await?;
    }
    match &*pairing.state {
        "committed" | "done" => paired(client, &pairing).await,
        _ => Err(ended(&pairing)),
    }
}

/// Waits until a pairing is past these states. What goes wrong meanwhile is told.
async fn settled(
    client: &mut Client,
    mut pairing: pb::Pairing,
    states: &[&str],
) -> Outcome<pb::Pairing> {
    let mut told = String::new();
    while states.contains(&&*pairing.state) {
        if pairing.trouble != told {
            tell(&pairing.trouble);
            told.clone_from(&pairing.trouble);
        }
        let side = side_of(&pairing);
        let known = Some(pairing.state.clone());
        pairing = get(client, side, pairing.id, known, HELD).await?;
    }
    Ok(pairing)
}

/// Shows who is there and the words, and has the operator say whether the other one reads the same.
async fn compared(
    client: &mut Client,
    pairing: pb::Pairing,
    verbs: &PairingVerbs,
) -> Outcome<pb::Pairing> {
    let side = side_of(&pairing);
    if !verbs.yes {
        tell(&pairing_text(&pairing));
        let asked = confirm(
            CANNOT_PAIR,
            "Read the words to the other operator, over another way than the invitation took. Does the other one read the \
             same?",
        );
        if let Err(failure) = asked {
            if !io::stdin().is_terminal() {
                return Err(Failure::new(
                    CANNOT_PAIR,
                    "the words have to be compared, and there is no terminal to ask on",
                    how_to_confirm(&pairing),
                ));
            }
            let request = pb::CancelPairingRequest {
                side: pairing.side.clone(),
                id: pairing.id.clone(),
            };
            answer("cannot end it", client.cancel_pairing(request).await)?;
            return Err(failure);
        }
    }
    let asked = client.confirm_pairing(pb::ConfirmPairingRequest {
        side: side.as_str().to_owned(),
        id: pairing.id.clone(),
        words: verbs.words.clone(),
        update: verbs.update,
    });
    let pairing = answer(CANNOT_PAIR, asked.await)?.pairing;
    Ok(pairing.unwrap_or_default())
}

/// Waits for the link, which takes a moment, and says what to do next.
async fn paired(client: &mut Client, pairing: &pb::Pairing) -> Outcome {
    let deadline = Instant::now() + LINK;
    let peer = loop {
        let asked = client.get_cluster_status(pb::GetClusterStatusRequest {});
        let status = answer("cannot show the status", asked.await)?;
        let mut peers = status.peers.into_iter();
        let peer = peers.find(|peer| peer.cluster_id == pairing.cluster_id);
        if peer.as_ref().is_some_and(is_up) || Instant::now() >= deadline {
            break peer.unwrap_or_default();
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    let id = &pairing.cluster_id;
    let outbound = peer.outbound.clone().unwrap_or_default();
    let link = if is_up(&peer) {
        let version = outbound.version.unwrap_or_default();
        format!(
            "the link is up in both directions, version {version}\n\nnext: emccd cluster status"
        )
    } else {
        let why = outbound
            .reason
            .unwrap_or_else(|| "the other side has not called yet".to_owned());
        format!("the link is not up yet: {why}\n\nnext: emccd cluster refresh {id}")
    };
    let json = serde_json::json!({ "pairing": pairing, "peer": peer });
    Ok(Report::new(format!("{id} is a peer now; {link}"), &json))
}

fn is_up(peer: &pb::PeerStatus) -> bool {
    let to_them = peer.outbound.as_ref().is_some_and(|o| o.state == "up");
    to_them && peer.inbound.as_ref().is_some_and(|i| i.watching)
}

fn ended(pairing: &pb::Pairing) -> Failure {
    let why = match (&*pairing.state, pairing.trouble.is_empty()) {
        (_, false) => format!("it is {}: {}", pairing.state, pairing.trouble),
        ("expired", true) => "its time is over".to_owned(),
        (state, true) => format!("it is {state}"),
    };
    Failure::new(
        CANNOT_PAIR,
        why,
        "begin anew with an invitation: emccd cluster invite",
    )
    .with("pairing", serde_json::to_value(pairing).unwrap_or_default())
}

fn side_of(pairing: &pb::Pairing) -> Side {
    pairing.side.parse().unwrap_or(Side::Inviting)
}

fn command(pairing: &pb::Pairing) -> &'static str {
    side_of(pairing).command()
}

/// What was handed over, and how it is looked after.
fn handed_over(pairing: &pb::Pairing) -> String {
    let (id, until) = (&pairing.id, time(&pairing.expires_at));
    format!(
        "Invitation {id}, until {until}. Hand the line to the operator of the other cluster, who types: emccd cluster join\n\
         To see how it stands: emccd cluster invite --list. To take it back: emccd cluster invite --cancel {id}"
    )
}

fn how_to_confirm(pairing: &pb::Pairing) -> String {
    format!(
        "next: compare the words with the other operator, then: {} --confirm {} --yes --words \"WORDS OF THE OTHER SIDE\"",
        command(pairing),
        pairing.id
    )
}

fn token_text(token: &Token) -> String {
    let addresses: Vec<_> = token.addresses.iter().map(ToString::to_string).collect();
    record(&[
        ("invitation of", token.cluster.to_string()),
        ("at", addresses.join(" ")),
        ("until", time(&token.expires_at.to_string())),
    ])
}

/// Who is on the other side, and the words.
fn pairing_text(pairing: &pb::Pairing) -> String {
    let mut text = record(&[
        ("cluster", pairing.cluster_id.clone()),
        ("name", pairing.name.clone()),
        ("software", pairing.software.clone()),
        ("protocol", pairing.versions.clone()),
        ("security mode", pairing.security_mode.clone()),
        ("seen at", pairing.remote.clone()),
    ]);
    for address in &pairing.addresses {
        let state = match &address.trouble {
            None => "answers".to_owned(),
            Some(trouble) => format!("NOT BELIEVED, will not be stored: {trouble}"),
        };
        text += &format!(
            "\naddress        {}: {}",
            clean(&address.address),
            clean(&state)
        );
        if let Some(warning) = &address.warning {
            text += &format!("\n               warning: {}", clean(warning));
        }
    }
    for certificate in &pairing.certificates {
        text += &format!(
            "\ncertificate    {}, until {}\n               SHA-256 {}",
            clean(&certificate.subject),
            time(&certificate.not_after),
            certificate.fingerprint
        );
    }
    if !pairing.trouble.is_empty() {
        text += &format!("\n\nWARNING: {}", clean(&pairing.trouble));
    }
    if pairing.is_peer {
        text += &format!("\n\n{} is a peer already.", clean(&pairing.cluster_id));
    }
    if !pairing.words.is_empty() {
        text += &format!("\n\nwords: {}", clean(&pairing.words));
    }
    text
}

fn list_text(pairings: &[pb::Pairing]) -> String {
    if pairings.is_empty() {
        return "there is none".to_owned();
    }
    let rows = pairings.iter().map(|pairing| {
        [
            pairing.id.clone(),
            pairing.state.clone(),
            pairing.cluster_id.clone(),
            time(&pairing.expires_at),
            pairing.words.clone(),
            pairing.confirmed_by.clone().unwrap_or_default(),
            pairing.trouble.clone(),
        ]
    });
    table(
        [
            "ID",
            "STATE",
            "PEER",
            "UNTIL",
            "WORDS",
            "CONFIRMED BY",
            "TROUBLE",
        ],
        rows.collect(),
    )
}

/// Reads an invitation from a file or standard input.
fn read_invitation(file: Option<&Path>) -> Outcome<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(1024));
    let most = u64::try_from(MAX_CHARS).unwrap_or(u64::MAX);
    let read = match file {
        Some(file) => File::open(file).and_then(|f| f.take(most).read_to_string(&mut text)),
        None if io::stdin().is_terminal() => {
            tell("Paste the invitation:");
            io::stdin().lock().read_line(&mut text)
        }
        None => io::stdin().lock().take(most).read_to_string(&mut text),
    };
    match read {
        Ok(_) => Ok(text),
        Err(cause) => {
            let whence = file.map_or_else(|| "standard input".to_owned(), shown);
            let why = format!("{whence}: {cause}");
            let next = "check the path and that you may read it";
            Err(Failure::new("cannot read the invitation", why, next))
        }
    }
}

/// Tells what goes on, beside what the command prints.
fn tell(text: &str) {
    // Nobody listens: the pairing goes on all the same.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

const CANNOT_JOIN: &str = "cannot join";
const CANNOT_PAIR: &str = "the clusters are not paired";

/// As the daemon's bound.
const HELD: Duration = Duration::from_secs(10);
/// How long the link may take to come up until it is said that it has not.
const LINK: Duration = Duration::from_secs(15);
/// Nobody notices this delay.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
