//! `param`, from the typed line to the row and the audit.

use super::*;
use crate::store::parameters as stored;

async fn outcomes(node: &Node) -> Vec<(String, String)> {
    let all = node.store.read(|tx| audit::list(tx, 100)).await.unwrap();
    all.into_iter().map(|e| (e.action, e.outcome)).collect()
}

#[tokio::test]
async fn a_parameter_is_set_shown_and_taken_back_and_the_audit_has_both_values() {
    let node = Node::start().await;
    let set = node
        .type_in("param set maximum-concurrent-requests 512")
        .await;
    assert!(set.text.contains("is 512 now; it was 256"), "{}", set.text);
    assert_eq!(node.changes.load(Ordering::SeqCst), 1);
    let again = node
        .type_in("param set maximum-concurrent-requests 512")
        .await;
    assert!(again.text.contains("as before"), "{}", again.text);

    let listed = node.type_in("param list --set").await;
    assert!(
        listed
            .text
            .contains("maximum-concurrent-requests  512    256")
            && listed.text.contains("by ")
            && listed.text.lines().count() == 2,
        "{}",
        listed.text
    );
    assert_eq!(listed.json[0]["value"], "512");
    assert!(listed.json[0]["set_at"].is_string());
    let all = node.type_in("param list").await;
    assert_eq!(
        all.text.lines().count(),
        1 + crate::domain::parameters::TABLE.len()
    );
    let shown = node.type_in("param show maximum-concurrent-requests").await;
    assert!(
        shown.text.contains("256, because") && shown.text.contains("1 to 4096"),
        "{}",
        shown.text
    );

    let reset = node
        .type_in("param reset maximum-concurrent-requests")
        .await;
    assert!(
        reset.text.contains("is 256 now; it was 512"),
        "{}",
        reset.text
    );
    let nothing = node
        .type_in("param reset maximum-concurrent-requests")
        .await;
    assert!(nothing.text.contains("was not set"), "{}", nothing.text);
    let rows = node.store.read(|tx| stored::all(tx)).await.unwrap();
    assert!(rows.is_empty(), "{rows:?}");
    assert_eq!(
        outcomes(&node).await,
        [
            (
                "param.reset".to_owned(),
                "256, the default, before: 512".to_owned()
            ),
            ("param.set".to_owned(), "512, before: 256".to_owned()),
        ]
    );
    node.end().await;
}

#[tokio::test]
async fn what_is_no_parameter_or_no_value_changes_nothing_and_says_what_would() {
    let node = Node::start().await;
    for (line, words) in [
        (
            "param set max-concurrent-requests 5",
            [
                "did you mean maximum-concurrent-requests?",
                "emccd param list",
            ],
        ),
        (
            "param set maximum-concurrent-requests -1",
            [
                "whole number (allowed: 1 to 4096)",
                "emccd param show maximum-concurrent-requests",
            ],
        ),
        (
            "param set remote-cluster-update-interval 15",
            ["not taken over, because", "emccd param list"],
        ),
        (
            "param show multiple-login-behaviour",
            ["did you mean multiple-login-behavior?", "emccd param list"],
        ),
        (
            "param reset colour",
            ["there is no parameter colour", "emccd param list"],
        ),
    ] {
        let told = node.refused(line).await;
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    }
    assert!(outcomes(&node).await.is_empty());
    assert_eq!(node.changes.load(Ordering::SeqCst), 0);
    node.end().await;
}

#[tokio::test]
async fn a_stored_value_that_can_not_be_used_is_shown_as_the_default() {
    let node = Node::start().await;
    node.store
        .write(|tx| {
            stored::set(
                tx,
                &stored::Setting {
                    name: "allow-proxy".to_owned(),
                    value: "sometimes".to_owned(),
                    set_at: NOW,
                    set_by: "a newer version".to_owned(),
                },
            )
        })
        .await
        .unwrap();
    let shown = node.type_in("param show allow-proxy").await;
    assert_eq!(shown.json["value"], "off");
    assert!(shown.json["set_by"].is_null(), "{}", shown.json);
    let mended = node.type_in("param set allow-proxy on").await;
    assert_eq!(mended.json["parameter"]["value"], "on");
    node.end().await;
}
