//! `export` over the socket: to standard output, into a folder, and on record.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::Node;
use crate::store::{audit, base_devices, users};

async fn node_with_data() -> Node {
    let node = Node::start().await;
    node.store
        .write(|tx| {
            base_devices::upsert(tx, &"EMCC1".parse().unwrap())?;
            users::upsert(
                tx,
                &users::User {
                    user_id: "anna".parse().unwrap(),
                    self_service_id: None,
                    primary_extension: None,
                    display_name: "Anna; Berg".to_owned(),
                    enabled: true,
                    emcc_enabled: false,
                    policy: None,
                },
            )
        })
        .await
        .unwrap();
    node
}

#[tokio::test]
async fn an_export_is_printed_or_written_into_an_empty_folder_and_is_on_record() {
    let node = node_with_data().await;
    let printed = node.type_in("export").await;
    assert_eq!(
        printed.text,
        "[[user]]\nid = \"anna\"\nname = \"Anna; Berg\"\nemcc = false\n\n[[base-device]]\nname = \"EMCC1\"\n"
    );
    assert_eq!(printed.json["files"][0]["records"], 1);
    let written = node.type_in("export --format csv --out @data").await;
    assert!(written.text.contains("users.csv"), "{}", written.text);
    let users = node.file("data").join("users.csv");
    assert_eq!(
        fs::read_to_string(&users).unwrap(),
        "id,name,self-service-id,extension,pin-hash,enabled,emcc,policy\nanna,\"Anna; Berg\",,,,true,false,\n"
    );
    for (path, mode) in [(&users, 0o600), (&node.file("data"), 0o700)] {
        let found = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
    let refused = node.refused("export --out @data").await;
    assert!(
        refused.contains("that is empty or not there yet"),
        "{refused}"
    );
    let entries = node.store.read(|tx| audit::list(tx, 10)).await.unwrap();
    let told: Vec<_> = entries.iter().map(|e| (&*e.action, &*e.outcome)).collect();
    assert_eq!(
        told,
        [
            ("data.export", "users.csv: 1, base-devices.csv: 1"),
            ("data.export", "users.toml: 1, base-devices.toml: 1"),
        ]
    );
    node.end().await;
}

#[tokio::test]
async fn csv_is_not_printed_and_a_store_with_nothing_says_so() {
    let node = Node::start().await;
    let usage = node.try_type("export --format csv").await.unwrap_err();
    assert_eq!(usage.exit_code(), 2);
    assert!(usage.to_string().contains("--out DIR"), "{usage}");
    let nothing = node.type_in("export").await;
    assert_eq!(nothing.text, "# there is nothing to export");
    node.end().await;
}
