//! `trust explain` against daemons, and against what is none.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    typed::{printed, type_at, works_at},
    *,
};

/// Answers each connection with these bytes and ends it.
pub(super) async fn answering(bytes: &'static [u8]) -> (String, Tasks) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = Tasks::default();
    let stop = serving.token();
    serving.spawn("server", async move {
        while let Some(Ok((mut tcp, _))) = stop.run_until_cancelled(listener.accept()).await {
            // Whoever ends with unread bytes resets, and what was answered is lost.
            let mut said = [0; 4_096];
            let _heard = tcp.read(&mut said).await;
            let _gone = tcp.write_all(bytes).await;
            let _ended = tcp.shutdown().await;
            while matches!(tcp.read(&mut said).await, Ok(1..)) {}
        }
    });
    (address, serving)
}

fn next(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

#[tokio::test]
async fn a_peer_an_address_and_a_file_are_explained_and_end_with_what_mends_them() {
    let lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let address = tokyo.member().unwrap().addresses.federation.clone();

    // All is well: each step is told, and the exit code says so.
    let line = format!("trust explain {}", tokyo.id);
    let told = works_at(berlin, &line).await;
    for step in [
        "TCP",
        "TLS 1.3",
        "certificate",
        "it is this certificate",
        "accepts our certificate",
        "clock",
        "and watches it",
    ] {
        assert!(told.contains(step), "{step}: {told}");
    }
    assert_eq!(next(&told), "accepted");
    let line = format!("--json trust explain {address} --as {}", tokyo.id);
    let told: serde_json::Value = serde_json::from_str(&works_at(berlin, &line).await).unwrap();
    assert_eq!(told["accepted"], true);
    assert_eq!(told["parts"][0]["title"], *address);
    let told = works_at(berlin, &format!("trust explain {address}")).await;
    assert!(
        told.contains(&format!("it identifies {}", tokyo.id)),
        "{told}"
    );
    // Looking leaves nothing at the other side's door.
    assert_eq!(door(tokyo).await, []);

    // Our own address, and the other cluster's certificate as a file.
    let own = berlin.member().unwrap().addresses.federation.clone();
    let typed = type_at(berlin, &format!("trust explain {own}")).await;
    assert_eq!(typed.code, Some(1), "{typed:?}");
    assert!(
        typed.out.contains("this node's own certificate"),
        "{typed:?}"
    );
    let file = tokyo
        .member()
        .unwrap()
        .federation_certificate
        .display()
        .to_string();
    let line = format!("trust explain {file} --as {}", tokyo.id);
    assert!(
        works_at(berlin, &line)
            .await
            .contains("shown by a caller of ours")
    );
    let typed = type_at(tokyo, &format!("trust explain {file}")).await;
    assert_eq!(typed.code, Some(1), "{typed:?}");
    assert!(
        typed.out.contains("this node's own certificate"),
        "{typed:?}"
    );
    // Without a daemon the file alone is judged.
    let line = format!("--socket /nowhere/admin.sock trust explain {file}");
    let told = works_at(berlin, &line).await;
    assert!(
        told.contains("the file itself") && told.contains("no daemon runs with it"),
        "{told}"
    );
    let line = format!(
        "--socket /nowhere/admin.sock trust explain {file} --as {}",
        tokyo.id
    );
    assert_eq!(type_at(berlin, &line).await.code, Some(1));

    // A renewal that was not handed on, from both sides, and mended by the line that is printed.
    let other = another(tokyo);
    swap(tokyo, &other).await.unwrap();
    restart_links(berlin, tokyo).await;
    rejected(berlin, tokyo, Rejection::UnknownIssuer).await;
    let typed = type_at(berlin, &format!("trust explain {}", tokyo.id)).await;
    assert_eq!(typed.code, Some(1), "{typed:?}");
    assert!(typed.out.contains(&other.fingerprint_text()), "{typed:?}");
    assert!(
        typed
            .out
            .contains("another certificate under the same name"),
        "{typed:?}"
    );
    assert!(
        next(&typed.out).ends_with("more: emccd trust explain unknown-issuer"),
        "{typed:?}"
    );
    let theirs = type_at(tokyo, &format!("trust explain {}", berlin.id)).await;
    assert_eq!(theirs.code, Some(1), "{theirs:?}");
    let refuses = format!("{} refuses our certificate", berlin.id);
    assert!(
        theirs.out.contains(&refuses) && theirs.out.contains("its clock is"),
        "{theirs:?}"
    );
    let mend = printed(next(&typed.out), "trust add", &[("FILE", &file)]);
    works_at(berlin, &mend).await;
    linked(berlin, tokyo).await;
    works_at(berlin, &format!("trust explain {}", tokyo.id)).await;
    works_at(tokyo, &format!("trust explain {}", berlin.id)).await;

    // What is no federation listener.
    let (plain, web) = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let typed = type_at(berlin, &format!("trust explain {plain} --as {}", tokyo.id)).await;
    assert!(
        typed.code == Some(1) && typed.out.contains("is not TLS"),
        "{typed:?}"
    );
    assert!(
        next(&typed.out).contains("emccd cluster set") || next(&typed.out).contains("TLS (https)"),
        "{typed:?}"
    );
    web.cancel();
    let (old, serving) = server_of(&other, &rustls::version::TLS12).await;
    let typed = type_at(berlin, &format!("trust explain {old}")).await;
    assert_eq!(typed.code, Some(1), "{typed:?}");
    assert!(typed.out.contains("TLS 1.2 and not TLS 1.3"), "{typed:?}");
    assert!(
        typed.out.contains(&other.fingerprint_text()),
        "its certificate is seen: {typed:?}"
    );
    serving.cancel();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let typed = type_at(berlin, &format!("trust explain {closed}")).await;
    assert!(
        typed.code == Some(1) && typed.out.contains("no connection"),
        "{typed:?}"
    );
    let typed = type_at(berlin, "trust explain nobody.invalid:8444").await;
    assert!(
        typed.code == Some(1) && typed.out.contains("has no address"),
        "{typed:?}"
    );
    // What was mistyped is told as that.
    for (line, said) in [
        ("trust explain t.example:99999", "1 to 65535"),
        ("trust explain https://t.example:8444", "a URL"),
    ] {
        let typed = type_at(berlin, line).await;
        assert!(
            typed.code == Some(2) && typed.err.contains(said),
            "{typed:?}"
        );
    }
    let typed = type_at(berlin, "trust explain paris").await;
    assert!(
        typed.code == Some(1) && typed.err.contains("emccd cluster list"),
        "{typed:?}"
    );
    lab.shut_down().await;
}

/// Has what lives on a certificate that is shown no longer dialled anew.
async fn restart_links(us: &Cluster, them: &Cluster) {
    let set = |enabled| pb::SetClusterRequest {
        cluster_id: them.id.to_string(),
        enabled: Some(enabled),
        ..pb::SetClusterRequest::default()
    };
    let mut admin = us.admin().await.unwrap();
    admin.set_cluster(set(false)).await.unwrap();
    admin.set_cluster(set(true)).await.unwrap();
}
