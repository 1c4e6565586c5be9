//! The body of a request on its way to a role: whether all of it has come.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::share::Share;
use crate::domain::ids::ClusterId;

/// A body that tells when it has come whole. Until then its call is one that the peer has begun and not finished.
pub(super) struct Received<B> {
    body: B,
    is_whole: Option<Arc<AtomicBool>>,
    unfinished: Option<Share<ClusterId>>,
}

impl<B: HttpBody> Received<B> {
    pub(super) fn new(
        body: B,
        is_whole: Option<Arc<AtomicBool>>,
        unfinished: Option<Share<ClusterId>>,
    ) -> Self {
        let mut received = Self {
            body,
            is_whole,
            unfinished,
        };
        received.look();
        received
    }

    /// What was taken back ends too, but not as a whole: only the body itself knows.
    fn look(&mut self) {
        if self.body.is_end_stream() {
            self.unfinished = None;
            if let Some(is_whole) = self.is_whole.take() {
                is_whole.store(true, Ordering::Release);
            }
        }
    }
}

impl<B: HttpBody + Unpin> HttpBody for Received<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.look();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty, Full, StreamBody};

    use super::*;
    use crate::edge::listener::Shares;

    fn received<B: HttpBody>(body: B) -> (Received<B>, Arc<AtomicBool>, Shares<ClusterId>) {
        let (is_whole, shares) = (Arc::<AtomicBool>::default(), Shares::new(8));
        let share = shares.take(&berlin());
        let received = Received::new(body, Some(Arc::clone(&is_whole)), share);
        (received, is_whole, shares)
    }

    fn berlin() -> ClusterId {
        ClusterId::new("berlin").unwrap()
    }

    #[tokio::test]
    async fn a_body_is_whole_when_its_end_has_come() {
        let (body, is_whole, shares) = received(Full::new(Bytes::from_static(b"x")));
        assert!(!is_whole.load(Ordering::Acquire));
        assert_eq!(shares.held(&berlin()), 1);
        let mut body = body;
        body.frame().await.unwrap().unwrap();
        assert!(is_whole.load(Ordering::Acquire));
        assert_eq!(shares.held(&berlin()), 0, "though the body is still there");
        assert!(body.frame().await.is_none());
        let (_body, is_whole, _) = received(Empty::<Bytes>::new());
        assert!(is_whole.load(Ordering::Acquire));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_whole() {
        let frame = Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x")));
        // As what a peer has taken back: it ends, and does not call it the end.
        let (mut body, is_whole, shares) =
            received(StreamBody::new(futures_util::stream::iter([frame])));
        assert!(body.frame().await.is_some());
        assert!(body.frame().await.is_none());
        assert!(!is_whole.load(Ordering::Acquire));
        drop(body);
        assert_eq!(shares.held(&berlin()), 0);
    }
}
