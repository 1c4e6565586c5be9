//! The files of a large `apply`, as they arrive piece by piece.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use futures_util::stream;
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;
use zeroize::Zeroizing;

use crate::{
    apply::Progress,
    edge::admin::{
        error::Error,
        operations::{ApplyMode, File},
    },
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
        let piece = piece.map_err(|status| unfinished(status.message()))?;
        let meant = ApplyMode {
            dry_run: piece.dry_run,
            prune: piece.prune,
        };
        mode.get_or_insert(meant);
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

/// How far an import has come, and at last what was done.
pub type Told = Pin<Box<dyn Stream<Item = Result<pb::ApplyStreamResponse, Status>> + Send>>;

/// Carries an import on for as long as the caller listens, and tells how far it has come: the newest state, some times
/// a second.
pub fn told(
    applying: impl Future<Output = Result<pb::ApplyResponse, Status>> + Send + 'static,
    told: watch::Receiver<Progress>,
) -> Told {
    let state = Some((Box::pin(applying), told));
    Box::pin(stream::unfold(state, |state| async move {
        let (mut applying, mut told) = state?;
        tokio::select! {
            biased;
            done = &mut applying => {
                let last = done.map(|applied| pb::ApplyStreamResponse {
                    applied: Some(applied),
                    progress: None,
                });
                Some((last, None))
            }
            progress = next(&mut told) => {
                let message = pb::ApplyStreamResponse {
                    applied: None,
                    progress: Some(progress),
                };
                Some((Ok(message), Some((applying, told))))
            }
        }
    }))
}

/// The next state that is worth telling.
async fn next(told: &mut watch::Receiver<Progress>) -> pb::ApplyProgress {
    tokio::time::sleep(PACE).await;
    if told.changed().await.is_err() {
        // It is over: the answer is on its way.
        std::future::pending::<()>().await;
    }
    let progress = *told.borrow_and_update();
    let left = progress.left(Instant::now());
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
        assert!(mode.dry_run, "the first piece says how it is meant");
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
    async fn a_caller_who_is_stopped_is_given_up() {
        let silent =
            tokio_stream::iter(vec![Ok(piece("a", "1", false))]).chain(tokio_stream::pending());
        let pause = Duration::from_millis(1);
        assert!(collect(Box::pin(silent), pause).await.is_err());
    }
}
