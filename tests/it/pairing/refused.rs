//! Invitations that lead to nothing, and that say so.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_that_is_not_whole_is_told_from_one_that_is_wrong() {
    let lab = strangers(2, 1, Hosting::InProcess).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let (text, id) = invited(berlin, &[]).await;
    let join = join_words(tokyo);
    let cut = refused(tokyo, &join, &text[..text.len() - 9]).await;
    assert!(cut.contains("cut short"), "{cut}");
    let other = refused(tokyo, &join, "hello").await;
    assert!(other.contains("begins with emcc1-"), "{other}");
    let file = lab.folder().join("invitation");
    std::fs::write(&file, format!("{text}x")).unwrap();
    let more = ["--token-file", file.to_str().unwrap()];
    let long = refused(tokyo, &[&join[..], &more].concat(), "").await;
    assert!(long.contains("something follows"), "{long}");
    // By itself.
    let own = refused(berlin, &join_words(berlin), &text).await;
    assert!(own.contains("this cluster's own ID"), "{own}");
    // None of it has cost anything.
    assert_eq!(standing(berlin, "invite", &id).await["failures"], 0);
    // Taken back: there is nobody to join any more.
    json(berlin, &["cluster", "invite", "--cancel", &id], "").await;
    assert_eq!(standing(berlin, "invite", &id).await["state"], "cancelled");
    let closed = refused(tokyo, &join, &text).await;
    assert!(closed.contains("not open to anybody who joins"), "{closed}");
}
