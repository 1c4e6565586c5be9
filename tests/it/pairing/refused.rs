//! Invitations that lead to nothing, and that say so.

use emccd::{domain::address::HostPort, lab::member::Versions, secret::Secret};

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
    // The listener takes a moment to hear of it; who is let in until then is refused by the store.
    support::until(LIMIT, "its door is shut", async || {
        let closed = refused(tokyo, &join, &text).await;
        support::holds(closed.contains("not open to anybody who joins"), &closed)
    })
    .await;
}

/// The same invitation with another secret.
fn forged(text: &str) -> String {
    let mut token = Token::read(text).unwrap();
    token.secret = Secret::new(vec![1; 16]);
    token.text().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_proofs_burn_an_invitation_on_whichever_nodes() {
    let mut lab = strangers(2, 2, Hosting::InProcess).await;
    let (text, id) = invited(&lab.clusters[0], &[]).await;
    let mut token = Token::read(&forged(&text)).unwrap();
    let second = &lab.clusters[0].members[1].addresses.federation;
    let second: HostPort = second.parse().unwrap();
    let first = token.addresses.clone();
    for attempt in 1..=5 {
        if attempt == 4 {
            let member = lab.clusters[0].member_mut().unwrap();
            member.stop().await;
            member.start(&Versions::default()).await.unwrap();
        }
        let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
        token.addresses = match attempt % 2 {
            0 => vec![second.clone()],
            _ => first.clone(),
        };
        let mut told = refused(tokyo, &join_words(tokyo), &token.text()).await;
        while attempt == 2 && told.contains("is not open to anybody who joins") {
            // The other node takes a moment to hear of the invitation.
            told = refused(tokyo, &join_words(tokyo), &token.text()).await;
        }
        assert!(
            told.contains("its secret is another one"),
            "{attempt}: {told}"
        );
        let now = standing(berlin, "invite", &id).await;
        assert_eq!(now["failures"], attempt, "{now}");
        let expected = format!("wrong proof {attempt} of 5");
        assert!(
            now["trouble"].as_str().unwrap().contains(&expected),
            "{now}"
        );
    }
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    assert_eq!(standing(berlin, "invite", &id).await["state"], "burned");
    let told = refused(tokyo, &join_words(tokyo), &text).await;
    assert!(told.contains("not open"), "{told}");
    let audit = json(berlin, &["audit", "list", "--action", "pairing.fail"], "").await;
    assert_eq!(
        audit.to_string().matches("wrong proof").count(),
        5,
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_second_is_told_and_the_words_of_a_thief_differ() {
    let lab = strangers(3, 1, Hosting::InProcess).await;
    let (berlin, tokyo, thief) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    let (text, id) = invited(berlin, &[]).await;
    let stolen = json(thief, &join_words(thief), &text).await;
    for _ in 0..3 {
        let told = refused(tokyo, &join_words(tokyo), &text).await;
        assert!(told.contains("was used already"), "{told}");
        assert!(told.contains("must not confirm"), "{told}");
    }
    // Whoever knocks again and again leaves one entry.
    let audit = json(berlin, &["audit", "list", "--action", "pairing.fail"], "").await;
    assert_eq!(
        audit.to_string().matches("somebody else came").count(),
        1,
        "{audit}"
    );
    let seen = standing(berlin, "invite", &id).await;
    assert_eq!(seen["cluster_id"], thief.id.as_str());
    assert_eq!(seen["words"], stolen["words"]);
    let trouble = seen["trouble"].as_str().unwrap();
    assert!(
        trouble.contains("somebody else came with this invitation"),
        "{trouble}"
    );
    // What the invited operator reads, if anything, are other words.
    let line = [
        "cluster",
        "invite",
        "--confirm",
        &id,
        "--yes",
        "--words",
        "zoo zoo zoo zoo zoo zoo",
    ];
    let told = refused(berlin, &line, "").await;
    assert!(told.contains("the words differ"), "{told}");
    // The thief confirms, and it is of no use to him.
    let words = stolen["words"].as_str().unwrap();
    let line = [
        "cluster",
        "join",
        "--confirm",
        &id,
        "--no-wait",
        "--yes",
        "--words",
        words,
    ];
    json(thief, &line, "").await;
    let refusing = json(berlin, &["cluster", "invite", "--cancel", &id], "").await;
    assert_eq!(refusing["state"], "refused");
    until(thief, "join", &id, "refused").await;
    for cluster in [berlin, tokyo, thief] {
        let peers = json(cluster, &["cluster", "list"], "").await;
        assert_eq!(peers.as_array().unwrap().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_ends_by_either_clock() {
    let lab = strangers(2, 1, Hosting::InProcess).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let (text, id) = invited(berlin, &["--minutes", "1"]).await;
    let ahead = &tokyo.member().unwrap().clock;
    ahead.set_offset_millis(61_000);
    let told = refused(tokyo, &join_words(tokyo), &text).await;
    assert!(told.contains("has expired"), "{told}");
    ahead.set_offset_millis(0);
    berlin.member().unwrap().clock.set_offset_millis(61_000);
    let told = refused(tokyo, &join_words(tokyo), &text).await;
    assert!(told.contains("not open to anybody who joins"), "{told}");
    until(berlin, "invite", &id, "expired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_peer_is_none_of_a_new_one() {
    let lab = strangers(2, 1, Hosting::InProcess).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let certificate = tokyo.member().unwrap().federation_certificate.clone();
    let file = certificate.to_str().unwrap();
    let line = [
        "cluster",
        "add",
        "lima",
        "--address",
        "127.0.0.1:9",
        "--trust",
        file,
    ];
    json(berlin, &line, "").await;
    let (text, id) = invited(berlin, &[]).await;
    let joined = json(tokyo, &join_words(tokyo), &text).await;
    let words = joined["words"].as_str().unwrap();
    let line = [
        "cluster",
        "invite",
        "--confirm",
        &id,
        "--yes",
        "--words",
        words,
    ];
    let told = refused(berlin, &line, "").await;
    assert!(told.contains("is pinned for lima already"), "{told}");
    // The other operator takes it back: this side hears of it.
    json(tokyo, &["cluster", "join", "--cancel", &id], "").await;
    let ended = until(berlin, "invite", &id, "refused").await;
    assert_eq!(ended["trouble"], "the other operator did not confirm");
}
