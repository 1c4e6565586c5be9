//! `audit` and `db`, from the typed line.

use super::*;
use crate::store::audit::{Action, Entry, Noun};

fn entry(n: i64, actor: &str, action: Action) -> Entry {
    Entry {
        at: Timestamp::from_millis(NOW.as_millis() + n * 1_000),
        actor: actor.to_owned(),
        action,
        subject: format!("thing {n}"),
        outcome: "done".to_owned(),
        reference: (n == 2).then(|| Ref::from_bits(7)),
    }
}

async fn with_entries(store: &Store) {
    store
        .write(|tx| {
            store::meta::put(tx, "cluster-id", "berlin")?;
            audit::append(tx, &entry(1, "anna (uid 1000)", Action::Set(Noun::Param)))?;
            audit::append(tx, &entry(2, "cluster tokyo", Action::SessionLogin))?;
            audit::append(tx, &entry(3, "bob_1 (uid 1001)", Action::SessionLogout))
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn the_audit_is_narrowed_down() {
    let node = Node::start().await;
    assert_eq!(node.type_in("audit list").await.text, "no entries");
    with_entries(&node.store).await;
    let reference = Ref::from_bits(7);
    let after_first = entry(2, "", Action::DbBackup).at;
    for (options, expected) in [
        (String::new(), &[3, 2, 1][..]),
        ("--limit 2".to_owned(), &[3, 2]),
        ("--actor ANNA".to_owned(), &[1]),
        // A percent sign or an underscore is itself.
        ("--actor %".to_owned(), &[]),
        ("--actor b_1".to_owned(), &[3]),
        ("--actor n_a".to_owned(), &[]),
        ("--action session".to_owned(), &[3, 2]),
        ("--action session.logi".to_owned(), &[2]),
        ("--action session.login".to_owned(), &[2]),
        ("--action user".to_owned(), &[]),
        (format!("--ref {reference}"), &[2]),
        (format!("--since {after_first}"), &[3, 2]),
        (format!("--since {after_first} --action param"), &[]),
    ] {
        let found = node.type_in(&format!("audit list {options}")).await;
        let numbers: Vec<_> = found
            .json
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["number"].as_i64().unwrap())
            .collect();
        assert_eq!(numbers, expected, "{options}");
    }
    let some = node.type_in("audit list --limit 2").await;
    assert!(some.text.contains("only the newest 2"), "{}", some.text);
    assert!(some.note.is_some_and(|note| note.contains("--limit")));
    assert_eq!(node.type_in("audit list --limit 3").await.note, None);
    // What nothing is called would find nothing, for ever.
    for odd in ["login", "apply", "session logout", "user.make"] {
        let words = ["emccd", "audit", "list", "--action", odd];
        let refused = CommandLine::try_parse_from(words).unwrap_err().to_string();
        assert!(refused.contains("session.logout"), "{refused}");
    }
    let refused = node.refused("audit list --since yesterday").await;
    assert!(refused.contains("--since 2h"), "{refused}");
    node.end().await;
}

#[tokio::test]
async fn every_entry_can_be_reached() {
    let node = Node::start().await;
    node.store
        .write(|tx| {
            // All but one at the same time, as after a large file.
            (1..=1_200).try_for_each(|n| {
                let at = entry(n.min(1), "root", Action::DbBackup).at;
                let subject = format!("{n}");
                let actor = "root".to_owned();
                audit::append(
                    tx,
                    &Entry {
                        at,
                        actor,
                        subject,
                        ..entry(1, "root", Action::DbBackup)
                    },
                )
            })
        })
        .await
        .unwrap();
    let some = node.type_in("audit list --limit 1150").await;
    assert_eq!(some.json.as_array().unwrap().len(), 1_150);
    let note = some.note.unwrap();
    assert!(note.contains("newest 1150"), "{note}");
    let all = node.type_in("audit list --limit 5000").await;
    let numbers: Vec<_> = all
        .json
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["number"].as_i64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=1_200).rev().collect::<Vec<_>>());
    assert_eq!(all.note, None);
    node.end().await;
}

#[tokio::test]
async fn a_changed_entry_is_named_and_the_exit_code_says_so() {
    let node = Node::start().await;
    with_entries(&node.store).await;
    let whole = node.type_in("audit verify").await;
    assert!(
        whole.text.contains("whole: 3 entries of 1 node"),
        "{}",
        whole.text
    );
    node.store
        .write(|tx| tx.execute("UPDATE audit SET subject = 'other' WHERE seq = 2", &[]))
        .await
        .unwrap();
    let failure = node.try_type("audit verify").await.unwrap_err();
    assert_eq!(failure.exit_code(), 1);
    let told = failure.to_string();
    assert!(
        told.contains("of node b1: entry 2 does not match its hash") && told.contains("db verify"),
        "{told}"
    );
    assert_eq!(failure.to_json()["chains"][0]["entry"], 2);
    node.end().await;
}

/// Types a command that asks no daemon.
async fn alone(line: &str) -> Outcome {
    let line = format!("emccd {line}");
    dispatch(CommandLine::try_parse_from(line.split_whitespace()).unwrap()).await
}

#[tokio::test]
async fn a_file_is_checked_and_migrated_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live.db");
    let store = Store::open(&store::Config {
        url: format!("sqlite:{}", live.display()),
        node: "b1".to_owned(),
    })
    .unwrap();
    with_entries(&store).await;
    let copy = dir.path().join("copy.db");
    store.back_up(copy.clone()).await.unwrap();
    let copy = copy.display();
    let whole = alone(&format!("db verify {copy}")).await.unwrap();
    assert!(
        whole.text.contains("whole, and so is its audit") && whole.text.contains("--pepper-file"),
        "{}",
        whole.text
    );
    assert_eq!(whole.json["rows"]["audit"], 3);
    let same = alone(&format!("db migrate {copy}")).await.unwrap();
    assert!(same.text.contains("that of this version"), "{}", same.text);
    assert_eq!(same.json["done"], false);

    // Another version's file is not a damaged one; another program's is left as it is.
    let other = dir.path().join("other.db");
    fs::copy(dir.path().join("copy.db"), &other).unwrap();
    let shown = other.display().to_string();
    let newer = "UPDATE refinery_schema_history SET version = 900";
    store::tamper(&other, newer);
    let told = alone(&format!("db verify {shown}"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("or a newer one") && !told.contains("not fit"),
        "{told}"
    );
    let foreign = dir.path().join("foreign.db");
    store::tamper(&foreign, "CREATE TABLE theirs (a)");
    let before = fs::read(&foreign).unwrap();
    let told = alone(&format!("db migrate {}", foreign.display())).await;
    assert!(
        told.unwrap_err()
            .to_string()
            .contains("no database of emccd")
    );
    assert_eq!(fs::read(&foreign).unwrap(), before);
    assert!(!dir.path().join("foreign.turn").exists());

    // The audit of the file that the store has open, past its daemon.
    store
        .write(|tx| tx.execute("UPDATE audit SET outcome = 'x' WHERE seq = 3", &[]))
        .await
        .unwrap();
    store.back_up(dir.path().join("bad.db")).await.unwrap();
    let bad = alone(&format!(
        "db verify {}",
        dir.path().join("bad.db").display()
    ))
    .await;
    let told = bad.unwrap_err().to_string();
    assert!(told.contains("entry 3 does not match its hash"), "{told}");

    let none = alone(&format!("db verify {}", dir.path().join("none").display())).await;
    assert!(none.unwrap_err().to_string().contains("could not open"));
    let unnamed = alone("db migrate").await.unwrap_err();
    assert_eq!(unnamed.exit_code(), 2);
    store.close();
}

#[tokio::test]
async fn a_store_without_a_file_has_no_backup() {
    let node = Node::start().await;
    let to = node.file("copy.db");
    let refused = node.refused("db backup @copy.db").await;
    assert!(refused.contains("in memory"), "{refused}");
    assert!(!to.exists());
    node.end().await;
}
