//! SQLite's own promises, and the suite on both kinds of database.

use crate::store::{Config, Error, Store, meta};

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        url: format!("sqlite:{}", dir.path().join("store.db").display()),
        node: "n1".into(),
    };
    let store = Store::open(&config).unwrap();
    store.write(|tx| meta::put(tx, "a", "1")).await.unwrap();
    drop(store);
    let store = Store::open(&config).unwrap();
    let a: Result<_, Error> = store.read(|tx| meta::get(tx, "a")).await;
    assert_eq!(a.unwrap().as_deref(), Some("1"));
}
