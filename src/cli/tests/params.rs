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
async fn a_stored_value_that_can_not_be_used_is_shown_beside_the_default() {
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
    assert_eq!(shown.json["set_by"], "a newer version");
    assert_eq!(shown.json["stored"], "sometimes");
    let list = node.type_in("param list --set").await;
    assert!(
        list.text
            .contains("to sometimes, not usable here, by a newer version"),
        "{}",
        list.text
    );
    let mended = node.type_in("param set allow-proxy on").await;
    assert_eq!(mended.json["parameter"]["value"], "on");

    // One that only another version has is seen, and can be taken away.
    node.store
        .write(|tx| {
            let setting = stored::Setting {
                name: "future-thing".to_owned(),
                value: "7".to_owned(),
                set_at: NOW,
                set_by: "a newer version".to_owned(),
            };
            stored::set(tx, &setting)
        })
        .await
        .unwrap();
    let list = node.type_in("param list --set").await;
    assert!(list.text.contains("future-thing"), "{}", list.text);
    let shown = node.type_in("param show future-thing").await;
    assert!(
        shown.text.contains("to 7, not usable here") && !shown.text.contains("because"),
        "{}",
        shown.text
    );
    let gone = node.type_in("param reset future-thing").await;
    assert_eq!(gone.json["previous"], "7");
    assert_eq!(gone.text, "future-thing is taken away; it was 7");
    let list = node.type_in("param list --set").await;
    assert!(!list.text.contains("future-thing"), "{}", list.text);
    node.end().await;
}

#[tokio::test]
async fn values_that_shut_everybody_out_together_are_told() {
    let node = Node::start().await;
    let on = node.type_in("param set validate-ip-address on").await;
    assert!(on.text.contains("warning: every phone"), "{}", on.text);
    let named = node.type_in("param set trusted-ips 10.0.0.1").await;
    assert!(!named.text.contains("warning"), "{}", named.text);
    let nobody = node.type_in("param set trusted-ips none").await;
    assert!(
        nobody.text.contains("trusted-ips names nobody"),
        "{}",
        nobody.text
    );
    node.type_in("param set trusted-ips 10.0.0.1").await;
    let nobody = node.type_in("param reset trusted-ips").await;
    assert!(
        nobody.text.contains("trusted-ips names nobody"),
        "{}",
        nobody.text
    );
    let off = node.type_in("param set validate-ip-address off").await;
    assert!(off.json["warning"].is_null(), "{}", off.json);
    node.end().await;
}
