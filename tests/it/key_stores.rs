//! Nodes whose identities lie in key stores that `keytool` made: shown to peers and phones, exchanged, and still there
//! for Java.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use emccd::{
    clock::Clock,
    config::init,
    lab::{Lab, Spec, member::Member},
    trust::make::{self, CertRequest, KeyKind},
};

use crate::{
    rotation::{
        drain_at_once, linked,
        operator::{shown, type_at},
        request, step, until,
    },
    support::{binary, log_in},
};

const PASSWORD: &str = "geheim-123";

fn run(folder: &Path, program: &str, line: &str) -> String {
    let mut command = Command::new(program);
    command.args(line.split(' ')).current_dir(folder);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let told = [&*output.stdout, &*output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(output.status.success(), "{program} {line}: {told}");
    told
}

fn put(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Has `keytool` make a store of what lies in two files, and the node take its identity from there.
fn move_into_store(member: &Member, name: &str, kind: &str) {
    let folder = &member.folder;
    run(
        folder,
        "openssl",
        &format!(
            "pkcs12 -export -in {name}.pem -inkey {name}.key -name tomcat -out {name}.tmp -passout pass:{PASSWORD}"
        ),
    );
    run(
        folder,
        "keytool",
        &format!(
            "-importkeystore -noprompt -srckeystore {name}.tmp -srcstoretype PKCS12 -srcstorepass {PASSWORD} \
             -destkeystore {name}.store -deststoretype {kind} -deststorepass {PASSWORD}"
        ),
    );
    let store = folder.join(format!("{name}.store"));
    fs::set_permissions(&store, fs::Permissions::from_mode(0o600)).unwrap();
    put(
        &folder.join("store.password"),
        format!("{PASSWORD}\n").as_bytes(),
    );
    for gone in ["pem", "key", "tmp"] {
        // What lies there can't be what is shown.
        fs::rename(
            folder.join(format!("{name}.{gone}")),
            folder.join(format!("{name}.{gone}.gone")),
        )
        .unwrap();
    }
    let text = fs::read_to_string(&member.config).unwrap();
    let files = format!("certificate = \"{name}.pem\"\nkey = \"{name}.key\"");
    let of_store = format!(
        "key-store = \"{name}.store\"\nkey-store-password-file = \"store.password\"\nkey-alias = \"tomcat\""
    );
    assert!(text.contains(&files), "{text}");
    fs::write(&member.config, text.replace(&files, &of_store)).unwrap();
}

/// What Java finds in a node's store.
fn listed(member: &Member) -> String {
    let line = format!("-list -v -keystore federation.store -storepass {PASSWORD}");
    run(&member.folder, "keytool", &line)
}

fn doctor(member: &Member) -> String {
    let mut command = Command::new(binary());
    command.arg("--config").arg(&member.config).arg("doctor");
    let output = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_key_stores_link_exchange_their_certificates_and_start_again() {
    let mut lab = Lab::start(&Spec {
        clusters: 2,
        ..Spec::default()
    })
    .await
    .unwrap();
    for (cluster, kind) in lab.clusters.iter_mut().zip(["JKS", "PKCS12"]) {
        let member = cluster.member_mut().unwrap();
        member.stop().await;
        move_into_store(member, "federation", kind);
        move_into_store(member, "phone", kind);
        member.start(&Default::default()).await.unwrap();
    }
    linked(&lab).await;
    let answer = log_in(&lab, 0, 0, 1, 0).await;
    assert_eq!(answer.em_code, None, "{}", answer.body);
    for cluster in &lab.clusters {
        drain_at_once(cluster).await;
        let member = cluster.member().unwrap();
        let before = shown(member).await;
        assert!(listed(member).contains(&before));
        let by_itself = emccd::wire::admin::StepRotationRequest {
            automatic: true,
            ..request("announce", "all")
        };
        step(cluster, by_itself).await.unwrap();
        until(cluster, "over", <[_]>::is_empty).await;
        let now = shown(member).await;
        assert_ne!(now, before);
        // It is in the store, under the alias and the passwords from before.
        let listed = listed(member);
        assert!(
            listed.contains(&now) && !listed.contains(&before),
            "{listed}"
        );
        assert!(listed.contains("Alias name: tomcat"), "{listed}");
        linked(&lab).await;
    }
    for cluster in &mut lab.clusters {
        let member = cluster.member_mut().unwrap();
        let before = shown(member).await;
        member.stop().await;
        // The store alone is enough.
        let _ = fs::remove_dir_all(member.folder.join("identities"));
        member.start(&Default::default()).await.unwrap();
        assert_eq!(shown(member).await, before);
    }
    linked(&lab).await;

    // A store that can't be opened changes nothing, and everybody says why.
    let member = lab.clusters[0].member().unwrap();
    let before = shown(member).await;
    let password = member.folder.join("store.password");
    put(&password, b"another-one\n");
    let refused = type_at(member, "cert reload").await.unwrap_err();
    assert!(refused.contains("federation.store"), "{refused}");
    assert!(refused.contains("the password doesn't open"), "{refused}");
    assert!(!refused.contains("another-one"), "{refused}");
    let found = tokio::task::block_in_place(|| doctor(member));
    assert!(found.contains("identity.key-store"), "{found}");
    assert_eq!(shown(member).await, before);
    put(&password, format!("{PASSWORD}\n").as_bytes());
    let told = type_at(member, "cert reload").await.unwrap();
    let file = told[0]["file"].as_str().unwrap();
    assert!(file.ends_with("federation.store"), "{told}");
    lab.shut_down().await;
}

#[test]
fn an_authoritys_answer_to_keytools_request_goes_into_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let now = Clock::system().now();
    let created = init::create(&init::InitOptions {
        cluster_id: "berlin".parse().unwrap(),
        folder: dir.path().join("berlin"),
        port_base: init::DEFAULT_PORT_BASE,
        hosts: vec!["a.example".to_owned()],
        settings: Vec::new(),
        now,
    })
    .unwrap();
    let certs = created.federation_cert.parent().unwrap();
    let of_store = format!("-keystore tomcat.jks -storetype JKS -storepass {PASSWORD}");
    let made = format!(
        "-genkeypair -alias tomcat -keyalg EC -groupname secp256r1 -dname CN=berlin {of_store}"
    );
    run(certs, "keytool", &made);
    let store = certs.join("tomcat.jks");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o600)).unwrap();
    put(&certs.join("password"), PASSWORD.as_bytes());
    let text = fs::read_to_string(&created.config).unwrap();
    let text = text
        .replace(
            "certificate = \"certs/federation.pem\"",
            "key-store = \"certs/tomcat.jks\"",
        )
        .replace(
            "key = \"certs/federation.key\"",
            "key-store-password-file = \"certs/password\"",
        );
    fs::write(&created.config, text).unwrap();

    let request = CertRequest::new("Root", Vec::new(), KeyKind::P256, now, 30);
    let root = make::ca(&request).unwrap();
    fs::write(certs.join("root.pem"), &root.made().certificate_pem).unwrap();
    put(&dir.path().join("root.key"), root.made().key_pem.expose());
    run(
        certs,
        "keytool",
        &format!("-certreq -alias tomcat -file asked.csr {of_store}"),
    );
    run(
        certs,
        "openssl",
        "x509 -req -in asked.csr -CA root.pem -CAkey ../../root.key -days 20 -copy_extensions copyall -out answer.pem",
    );
    let output = Command::new(binary())
        .arg("--config")
        .arg(&created.config)
        .args(["cert", "install", "answer.pem", "root.pem", "--now"])
        .current_dir(certs)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{told}");
    let listed = run(certs, "keytool", &format!("-list -v {of_store}"));
    assert!(listed.contains("Issuer: CN=Root"), "{listed}");
    assert!(listed.contains("PrivateKeyEntry"), "{listed}");
}
