//! What other clusters are owed: seen, tried again, dropped.

use super::*;
use crate::store::debts;

const REF: &str = "0000-0001";

/// The phone's session is over, and tokyo refuses to hear of it.
async fn with_a_refused_end(node: &Node) -> String {
    with_people(node).await;
    let ended = node.type_in("session logout --device SEP1 --yes").await;
    assert_eq!(
        ended.json["session"]["owed_cause"],
        "the peer tokyo is disabled; it is told once enabled: emccd cluster set tokyo --enabled true"
    );
    park(node).await;
    ended.json["session"]["id"].as_str().unwrap().to_owned()
}

async fn park(node: &Node) {
    let parked = node.store.write(|tx| {
        let row = a_session(1, Role::Visiting, "tokyo", "SEP1");
        let cause = "it has no record of us";
        debts::park(tx, row.role, &row.counterpart, row.id, cause, NOW)
    });
    assert!(parked.await.unwrap());
}

#[tokio::test]
async fn what_is_refused_is_shown_and_tried_again() {
    let node = Node::start().await;
    let nothing = node.type_in("session list --owed").await;
    assert_eq!(nothing.text, "nothing is owed");
    let id = with_a_refused_end(&node).await;
    let owed = node.type_in("session list --owed").await;
    let rows = owed.json.as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["id"]), (1, &id.clone().into()));
    assert_eq!(rows[0]["parked"], "it has no record of us");
    assert!(owed.text.contains("parked: tokyo refuses"), "{}", owed.text);
    let others = node.type_in("session list --owed --peer lima").await;
    assert_eq!(others.text, "nothing is owed");
    let shown = node.type_in(&format!("session show {REF}")).await;
    for line in [
        "still to be told  tokyo",
        "not told because  parked:",
        "parked since",
    ] {
        assert!(shown.text.contains(line), "{}", shown.text);
    }
    let status = node.type_in("cluster status").await;
    let peer = &status.json["peers"][0];
    assert_eq!(
        (&peer["owed_ends"], &peer["parked_ends"]),
        (&1.into(), &1.into())
    );

    let retried = node.type_in(&format!("session retry {REF}")).await;
    assert_eq!(retried.json["unparked"], 1);
    assert!(
        retried.text.contains("tried again: 1 refused end"),
        "{}",
        retried.text
    );
    let again = node.type_in(&format!("session retry {id}")).await;
    assert_eq!(again.json["unparked"], 0);
    assert!(again.text.contains("tokyo is disabled"), "{}", again.text);
    park(&node).await;
    let retried = node.type_in("session retry --peer tokyo").await;
    assert_eq!(retried.json["unparked"], 1);
    let status = node.type_in("cluster status").await;
    let peer = &status.json["peers"][0];
    assert_eq!(
        (&peer["owed_ends"], &peer["parked_ends"]),
        (&1.into(), &0.into())
    );
    let audit = node.type_in("audit list --action session.retry").await;
    assert_eq!(audit.json.as_array().unwrap().len(), 2, "{}", audit.text);
    node.end().await;
}

#[tokio::test]
async fn what_is_dropped_is_owed_no_more_and_on_record() {
    let node = Node::start().await;
    let id = with_a_refused_end(&node).await;
    let unsure = node.refused(&format!("session drop {id}")).await;
    assert!(unsure.contains("add --yes"), "{unsure}");
    let dropped = node.type_in(&format!("session drop {id} --yes")).await;
    assert_eq!(dropped.json["sessions"][0]["owed"], false);
    assert!(
        dropped.text.contains("tokyo will not be told"),
        "{}",
        dropped.text
    );
    let rung = node.rung.lock().unwrap().clone();
    let rung: Vec<_> = rung.iter().map(|peer| peer.as_str()).collect();
    assert_eq!(rung, ["tokyo"], "it may come and ask");
    let owed = node.type_in("session list --owed").await;
    assert_eq!(owed.text, "nothing is owed");
    let audit = node.type_in("audit list --action session.drop").await;
    let outcome = audit.json[0]["outcome"].as_str().unwrap();
    assert_eq!(
        outcome,
        "tokyo is not told; it refused: it has no record of us"
    );
    for line in [
        format!("session drop {id} --yes"),
        format!("session retry {id}"),
    ] {
        let refused = node.refused(&line).await;
        assert!(refused.contains("nobody is owed the end"), "{refused}");
    }
    node.end().await;
}

#[tokio::test]
async fn there_is_nothing_to_do_about_what_lives_or_is_not_there() {
    let node = Node::start().await;
    with_people(&node).await;
    for verb in ["retry 0000-0002", "drop 0000-0002 --yes"] {
        let lives = node.refused(&format!("session {verb}")).await;
        assert!(lives.contains("the session lives"), "{lives}");
    }
    for verb in ["retry 0000-0009", "drop 0000-0009 --yes"] {
        let missing = node.refused(&format!("session {verb}")).await;
        assert!(missing.contains("there is no session"), "{missing}");
    }
    let neither = node.refused("session retry what").await;
    assert!(neither.contains("a UUID, or a ref"), "{neither}");
    let nobody = node.refused("session retry --peer lima").await;
    assert!(nobody.contains("there is no peer lima"), "{nobody}");
    node.end().await;
}
