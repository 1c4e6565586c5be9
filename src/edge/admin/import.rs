//! The files of a large `apply`, as they arrive piece by piece.

use std::{future::Future, pin::Pin, time::Duration};

use futures_util::stream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;
use zeroize::Zeroizing;

use crate::{
    apply::Progress,
    clock,
    edge::admin::{
        error::Error,
        operations::{ApplyMode, File, Operations},
        roles::Actor,
    },
    watch,
    wire::admin as pb,
};

/// What the files of one import may hold together: 100,000 users with hashes take a quarter of it.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The pause after which a caller is given up, so that one who is stopped doesn't keep others from importing.
pub const PAUSE: Duration = Duration::from_secs(30);

/// One file, in pieces until its length is known: text that grows leaves copies behind.
struct Pieces {
    name: String,
    pieces: Vec<Zeroizing<String>>,
}

impl Pieces {
    fn whole(self) -> File {
        let length = self.pieces.iter().map(|piece| piece.len()).sum();
        let mut content = Zeroizing::new(String::with_capacity(length));
        for piece in &self.pieces {
            content.push_str(piece);
        }
        File {
            name: self.name,
            content,
        }
    }
}

/// Puts the pieces together, with at most `pause` between two. How it is meant stands in the first one.
///
/// # Errors
/// When they are too much together, or don't arrive.
pub async fn collect(
    mut pieces: impl Stream<Item = Result<pb::ApplyStreamRequest, Status>> + Unpin,
    pause: Duration,
) -> Result<(Vec<File>, ApplyMode), Error> {
    let mut files: Vec<Pieces> = Vec::new();
    let mut mode = None;
    let mut left = MAX_BYTES;
    loop {
        let next = tokio::time::timeout(pause, pieces.next()).await;
        let Some(piece) = next.map_err(|_| unfinished("nothing came for a while"))? else {
            break;
        };
        let mut piece = piece.map_err(|status| unfinished(status.message()))?;
        mode.get_or_insert_with(|| ApplyMode {
            dry_run: piece.dry_run,
            prune: piece.prune,
            removals: agreed(std::mem::take(&mut piece.removals)),
        });
        let mut file = piece
            .piece
            .ok_or_else(|| Error::invalid("the piece", "given"))?;
        let content = Zeroizing::new(std::mem::take(&mut file.content));
        left = left
            .checked_sub(content.len())
            .ok_or_else(|| Error::invalid("the files", "at most 64 MiB together"))?;
        match files.last_mut() {
            Some(last) if piece.continues => last.pieces.push(content),
            _ => files.push(Pieces {
                name: std::mem::take(&mut file.name),
                pieces: vec![content],
            }),
        }
    }
    let mode = mode.ok_or_else(|| Error::invalid("the files", "one at least"))?;
    Ok((files.into_iter().map(Pieces::whole).collect(), mode))
}

/// The digest of what may be deleted, where one was given.
pub fn agreed(removals: String) -> Option<String> {
    Some(removals).filter(|text| !text.is_empty())
}

/// Applies, and has everybody take up what is in place. What doesn't follow is a warning: the files are applied.
///
/// # Errors
/// When they are not applied.
pub async fn apply(
    operations: &dyn Operations,
    files: Vec<File>,
    mode: ApplyMode,
    actor: &Actor,
    tell: watch::Sender<Progress>,
) -> Result<pb::ApplyResponse, Error> {
    let is_dry = mode.dry_run;
    let mut applied = operations.apply(files, mode, actor, tell).await?;
    let has = |kind: &str| !is_dry && applied.counts.iter().any(|count| count.kind == kind);
    let (has_peers, has_parameters) = (has("peer"), has("parameter"));
    if has_peers && let Err(error) = operations.peers_changed().await {
        applied.warnings.push(not_followed("peers", &error));
    }
    if has_parameters && let Err(error) = operations.parameters_changed().await {
        applied.warnings.push(not_followed("parameters", &error));
    }
    Ok(applied)
}

fn not_followed(what: &str, error: &Error) -> String {
    let why = crate::telemetry::error_chain(error);
    format!(
        "the files are applied, and this node could not take up the {what} at once: {why}; it tries again by itself, \
         and its log says when it can't"
    )
}

/// Gives an import up that has not got on for this long, and no other: clear PINs may take hours.
///
/// # Errors
/// Its own, and [`Error::TooSlow`].
pub async fn while_it_moves<T>(
    applying: impl Future<Output = Result<T, Error>>,
    mut told: watch::Receiver<Progress>,
    pause: Duration,
) -> Result<T, Error> {
    let stands_still = async {
        while let Ok(changed) = tokio::time::timeout(pause, told.changed()).await {
            if changed.is_err() {
                // It is over: the answer is on its way.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        biased;
        done = applying => done,
        () = stands_still => Err(Error::TooSlow { seconds: pause.as_secs() }),
    }
}

/// Far longer than any step takes to get on.
pub const STANDSTILL: Duration = Duration::from_secs(15 * 60);

/// How far an import has come, and at last what was done.
pub type Told = Pin<Box<dyn Stream<Item = Result<pb::ApplyStreamResponse, Status>> + Send>>;

/// An import whose caller listens.
enum Import<F> {
    UnderWay(Pin<Box<F>>, watch::Receiver<Progress>),
    /// It is over, and these are the last messages.
    Over(std::vec::IntoIter<Result<pb::ApplyStreamResponse, Status>>),
}

/// Carries an import on for as long as the caller listens, and tells how far it has come: the newest state, some times
/// a second.
pub fn told(
    applying: impl Future<Output = Result<pb::ApplyResponse, Error>> + Send + 'static,
    told: watch::Receiver<Progress>,
) -> Told {
    let state = Import::UnderWay(Box::pin(applying), told);
    Box::pin(stream::unfold(state, |state| async move {
        let mut last = match state {
            Import::Over(last) => last,
            Import::UnderWay(mut applying, mut told) => tokio::select! {
                biased;
                done = &mut applying => last_messages(done).into_iter(),
                progress = next(&mut told) => {
                    let message = pb::ApplyStreamResponse {
                        progress: Some(progress),
                        ..pb::ApplyStreamResponse::default()
                    };
                    return Some((Ok(message), Import::UnderWay(applying, told)));
                }
            },
        };
        last.next().map(|message| (message, Import::Over(last)))
    }))
}

/// What was done, or each reason why not and then the status.
fn last_messages(
    done: Result<pb::ApplyResponse, Error>,
) -> Vec<Result<pb::ApplyStreamResponse, Status>> {
    let error = match done {
        Ok(applied) => {
            return vec![Ok(pb::ApplyStreamResponse {
                applied: Some(applied),
                ..pb::ApplyStreamResponse::default()
            })];
        }
        Err(error) => error,
    };
    let mut messages = Vec::new();
    if let Error::Listed {
        why,
        reasons,
        left_out,
        ..
    } = &error
    {
        messages.extend(reasons.chunks(IN_ONE_MESSAGE).map(|some| {
            Ok(pb::ApplyStreamResponse {
                refusal: Some(pb::ApplyRefusal {
                    why: why.clone(),
                    reasons: some.to_vec(),
                    left_out: *left_out,
                }),
                ..pb::ApplyStreamResponse::default()
            })
        }));
    }
    messages.push(Err(error.into_status()));
    messages
}

/// Reasons. They have 4 MiB together, which is what a message may have: so no thousand of them is too large for one.
const IN_ONE_MESSAGE: usize = 1_000;

/// The next state that is worth telling.
async fn next(told: &mut watch::Receiver<Progress>) -> pb::ApplyProgress {
    tokio::time::sleep(PACE).await;
    if told.changed().await.is_err() {
        // It is over: the answer is on its way.
        std::future::pending::<()>().await;
    }
    let progress = *told.borrow_and_update();
    let left = progress.left(clock::instant());
    pb::ApplyProgress {
        step: progress.step.as_str().to_owned(),
        done: progress.done,
        of: progress.of,
        left_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// Between two of them.
const PACE: Duration = Duration::from_millis(200);

fn unfinished(why: &str) -> Error {
    Error::refused(
        format!("the files did not arrive whole: {why}"),
        "nothing was changed; apply again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(name: &str, content: &str, continues: bool) -> pb::ApplyStreamRequest {
        pb::ApplyStreamRequest {
            piece: Some(pb::ApplyFile {
                name: name.to_owned(),
                content: content.to_owned(),
            }),
            continues,
            dry_run: !continues,
            prune: false,
            removals: "ab".repeat(usize::from(!continues)),
        }
    }

    async fn collected(
        pieces: Vec<Result<pb::ApplyStreamRequest, Status>>,
    ) -> Result<(Vec<File>, ApplyMode), Error> {
        collect(tokio_stream::iter(pieces), PAUSE).await
    }

    #[tokio::test]
    async fn pieces_make_files_also_where_two_have_one_name() {
        let (files, mode) = collected(vec![
            Ok(piece("a", "1", false)),
            Ok(piece("a", "2", true)),
            Ok(piece("a", "3", false)),
        ])
        .await
        .unwrap_or_else(|error| panic!("{error}"));
        let files: Vec<_> = files.iter().map(|f| (&*f.name, &**f.content)).collect();
        assert_eq!(files, [("a", "12"), ("a", "3")]);
        assert_eq!(
            mode,
            ApplyMode {
                dry_run: true,
                prune: false,
                removals: Some("ab".to_owned())
            },
            "the first piece says how it is meant"
        );
    }

    #[tokio::test]
    async fn too_much_nothing_and_a_broken_stream_are_refused() {
        let half = "#".repeat(MAX_BYTES / 2 + 1);
        let two = vec![Ok(piece("a", &half, false)), Ok(piece("a", &half, true))];
        let broken = vec![
            Ok(piece("a", "1", false)),
            Err(Status::cancelled("gone away")),
        ];
        for (pieces, word) in [
            (two, "64 MiB"),
            (vec![], "one at least"),
            (broken, "gone away"),
        ] {
            match collected(pieces).await {
                Ok(_) => panic!("{word}: it was taken"),
                Err(error) => assert!(error.to_string().contains(word), "{error}"),
            }
        }
    }

    #[tokio::test]
    async fn the_newest_state_is_told_and_at_last_what_was_done() {
        let (tell, states) = watch::channel(Progress::begin());
        let (go, wait) = tokio::sync::oneshot::channel();
        let applying = async move {
            for done in 1..=7 {
                tell.send_modify(|progress| (progress.done, progress.of) = (done, 50));
            }
            wait.await.unwrap();
            Ok(pb::ApplyResponse {
                dry_run: true,
                ..pb::ApplyResponse::default()
            })
        };
        let mut all = told(applying, states);
        let first = all.next().await.unwrap().unwrap();
        let first = first.progress.unwrap();
        assert_eq!(
            (&*first.step, first.done, first.of),
            ("reading", 7, 50),
            "only the newest"
        );
        assert!(first.left_ms.is_some());
        go.send(()).unwrap();
        let last = all.next().await.unwrap().unwrap();
        assert!(last.applied.unwrap().dry_run && last.progress.is_none());
        assert!(all.next().await.is_none());
    }

    #[tokio::test]
    async fn an_import_may_take_as_long_as_it_gets_on() {
        let (tell, states) = watch::channel(Progress::begin());
        let slow = async {
            for done in 1..=50 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                tell.send_modify(|progress| progress.done = done);
            }
            Ok(())
        };
        let pause = Duration::from_secs(2);
        let began = std::time::Instant::now();
        let done = while_it_moves(slow, states.clone(), pause).await;
        assert!(done.is_ok() && began.elapsed() > pause);
        let stuck = async {
            tell.send_modify(|progress| progress.done = 1);
            std::future::pending::<Result<(), Error>>().await
        };
        let done = while_it_moves(stuck, states, pause).await;
        assert!(matches!(done, Err(Error::TooSlow { seconds: 2 })));
    }

    /// A status is a header, and that holds some kilobytes.
    #[tokio::test]
    async fn every_reason_is_told_before_the_status_that_has_room_for_few() {
        let reasons = |count: usize| (0..count).map(|n| format!("device SEP{n:05} is in use"));
        let refused = async move {
            Err(Error::listed(
                "what is in use can't be deleted",
                reasons(20_000),
                7,
                "end the sessions",
            ))
        };
        let (_tell, states) = watch::channel(Progress::begin());
        let mut all = told(refused, states);
        let mut found = Vec::new();
        let status = loop {
            match all.next().await.unwrap() {
                Ok(message) => {
                    let refusal = message.refusal.unwrap();
                    assert_eq!(refusal.left_out, 7);
                    found.extend(refusal.reasons);
                }
                Err(status) => break status,
            }
        };
        assert!(found.into_iter().eq(reasons(20_000)));
        assert!(all.next().await.is_none());
        let text = status.message();
        assert!(text.starts_with("what is in use can't be deleted:\ndevice SEP00000 is in use\n"));
        let rest: usize = text.rsplit(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(rest + text.lines().count() - 2, 20_007, "{text}");
        let bytes = text.len() + status.details().len();
        assert!(bytes < 6 * 1024, "{bytes} bytes in headers");
        // What is told at all is bounded too, and so is a reason that is one word.
        let long = Error::listed("no", std::iter::repeat_n("x".repeat(1 << 20), 9), 0, "-");
        let Error::Listed {
            reasons, left_out, ..
        } = &long
        else {
            panic!("{long}");
        };
        assert_eq!((reasons.len(), *left_out), (4, 5));
        let status = Error::refused("x".repeat(1 << 20), "-").into_status();
        assert!(status.message().len() + status.details().len() < 6 * 1024);
    }

    #[tokio::test]
    async fn a_caller_who_is_stopped_is_given_up() {
        let silent =
            tokio_stream::iter(vec![Ok(piece("a", "1", false))]).chain(tokio_stream::pending());
        let pause = Duration::from_millis(1);
        assert!(collect(Box::pin(silent), pause).await.is_err());
    }
}
