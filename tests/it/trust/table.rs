//! The closed set of reasons, row by row: both sides say it, and the command that is printed mends it. One lab.

use rustls::version::{TLS12, TLS13};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::TlsConnector;

use super::{
    typed::{printed, type_at, works_at},
    *,
};
use crate::support::tls::{Identity, federation_client};

/// The door's record of that side and reason, with the newest first.
async fn at_door(us: &Cluster, side: &str, rejection: Rejection) -> pb::DoorRefusal {
    let what = format!("{side} {rejection} at the door");
    let found = support::until(Duration::from_secs(30), what, async || {
        let door = door(us).await;
        let is_it = |r: &&pb::DoorRefusal| r.side == side && r.rejection == rejection.as_str();
        door.iter()
            .find(is_it)
            .cloned()
            .ok_or_else(|| format!("{door:#?}"))
    })
    .await;
    let page = format!("; more: emccd trust explain {}", rejection.word());
    assert!(found.hint.ends_with(&page), "{found:?}");
    found
}

/// What berlin's operator reads of a peer that it calls, with the page, in `cluster status` and by `trust explain`.
async fn refused_there(us: &Cluster, them: &Cluster, rejection: Rejection) -> String {
    let outbound = rejected(us, them, rejection).await;
    let page = format!("more: emccd trust explain {}", rejection.word());
    assert!(outbound.hint.unwrap().ends_with(&page));
    let reason = outbound.reason.unwrap();
    let told = reason.contains(rejection.meaning()) || reason.contains("does not speak TLS");
    assert!(told, "{rejection}: {reason}");
    let typed = type_at(us, &format!("trust explain {}", them.id)).await;
    assert_eq!(typed.code, Some(1), "{typed:?}");
    let next = typed.out.lines().last().unwrap_or_default().to_owned();
    assert!(
        next.starts_with("next: ") && next.ends_with(&page),
        "{rejection}: {typed:?}"
    );
    // The log and `cluster status` say the same.
    let door = at_door(us, "answerer", rejection).await;
    assert_eq!(next, format!("next: {}", door.hint));
    next
}

/// The link is as it should be, and the explanation says so.
async fn mended(berlin: &Cluster, tokyo: &Cluster) {
    linked(berlin, tokyo).await;
    // What the other side says of us follows with its next sign of life.
    support::until(Duration::from_secs(20), "explained as well", async || {
        let typed = type_at(berlin, &format!("trust explain {}", tokyo.id)).await;
        support::holds(typed.code == Some(0), &typed)
    })
    .await;
}

/// A caller of berlin that speaks TLS as it likes.
async fn shake(
    berlin: &Cluster,
    identity: Option<Identity>,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let config = federation_client(berlin, identity, &[version]);
    let tcp = TcpStream::connect(&berlin.member().unwrap().addresses.federation).await?;
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

#[tokio::test]
async fn each_reason_is_told_on_both_sides_and_mended_by_the_command_that_is_printed() {
    let lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let node = tokyo.member().unwrap();
    let (address, file) = (
        node.addresses.federation.clone(),
        node.federation_certificate.display().to_string(),
    );
    let peer = tokyo.id.to_string();
    let set_address = |to: &str| format!("cluster set {peer} --address {to}");
    linked(berlin, tokyo).await;

    // unknown issuer, by a renewal that nobody told of. The refused server learns the alert alone.
    let other = another(tokyo);
    swap(tokyo, &other).await.unwrap();
    works_at(berlin, &format!("cluster set {peer} --enabled false")).await;
    works_at(berlin, &format!("cluster set {peer} --enabled true")).await;
    let next = refused_there(berlin, tokyo, Rejection::UnknownIssuer).await;
    let theirs = rejected(tokyo, berlin, Rejection::UnknownIssuer)
        .await
        .reason
        .unwrap();
    assert!(theirs.contains(&other.fingerprint_text()), "{theirs}");
    at_door(berlin, "caller", Rejection::UnknownIssuer).await;
    at_door(berlin, "answerer", Rejection::UnknownIssuer).await;
    at_door(tokyo, "own", Rejection::UnknownIssuer).await;
    works_at(berlin, &printed(&next, "trust add", &[("FILE", &file)])).await;
    mended(berlin, tokyo).await;

    // revoked, by its fingerprint, and taken back by pinning it again.
    let print = other.fingerprint_text();
    works_at(
        berlin,
        &format!("trust remove {peer} --fingerprint {print} --mode unlink --yes"),
    )
    .await;
    let next = refused_there(berlin, tokyo, Rejection::Revoked).await;
    rejected(tokyo, berlin, Rejection::Revoked).await;
    at_door(tokyo, "own", Rejection::Revoked).await;
    works_at(
        berlin,
        &printed(
            &next,
            &format!("trust add {peer} --pin"),
            &[("FILE", &file)],
        ),
    )
    .await;
    mended(berlin, tokyo).await;

    // wrong name, under an anchor. The names that are set are not told to who is refused.
    works_at(
        berlin,
        &format!("cluster set {peer} --node-name n9.{peer}.example"),
    )
    .await;
    let authority = tokyo.authority.file.display().to_string();
    works_at(berlin, &format!("trust add {peer} --anchor {authority}")).await;
    works_at(
        berlin,
        &format!("trust remove {peer} --fingerprint {print} --mode unlink --yes"),
    )
    .await;
    works_at(berlin, &format!("trust add {peer} --unrevoke {print}")).await;
    let next = refused_there(berlin, tokyo, Rejection::WrongName).await;
    let theirs = rejected(tokyo, berlin, Rejection::WrongName).await;
    assert!(!format!("{theirs:?}").contains("n9."), "{theirs:?}");
    at_door(berlin, "caller", Rejection::WrongName).await;
    let carried = shown_by(tokyo).await.certificate.unwrap().names[0].clone();
    works_at(
        berlin,
        &printed(&next, "cluster set", &[("NAME", &carried)]),
    )
    .await;
    mended(berlin, tokyo).await;

    // revoked under an anchor, and taken back by its fingerprint.
    works_at(
        berlin,
        &format!("trust remove {peer} --fingerprint {print} --mode unlink --yes"),
    )
    .await;
    let next = refused_there(berlin, tokyo, Rejection::Revoked).await;
    works_at(berlin, &printed(&next, "trust add", &[("HEX", &print)])).await;
    mended(berlin, tokyo).await;

    // ambiguous: another peer has the same authority and name.
    let anchors = format!(
        "cluster add oslo --address 127.0.0.1:9 --anchor {authority} --node-name {carried}"
    );
    let refused = type_at(berlin, &anchors).await;
    assert_eq!(
        refused.code,
        Some(1),
        "it is found out when it is configured: {refused:?}"
    );
    works_at(berlin, &format!("trust add {peer} --pin {file}")).await;
    works_at(
        berlin,
        &format!("cluster set {peer} --node-name n9.{peer}.example"),
    )
    .await;
    mended(berlin, tokyo).await;
    works_at(berlin, &anchors).await;
    works_at(berlin, "cluster set oslo --enabled false").await;
    let next = refused_there(berlin, tokyo, Rejection::Ambiguous).await;
    rejected(tokyo, berlin, Rejection::Ambiguous).await;
    at_door(tokyo, "own", Rejection::Ambiguous).await;
    let root = std::fs::read(&authority).unwrap();
    let root =
        emccd::trust::certificate::Certificate::read_all(&root).unwrap()[0].fingerprint_text();
    let line = printed(&next, "trust remove", &[("ID", "oslo"), ("HEX", &root)]);
    works_at(berlin, &format!("{line} --yes")).await;
    mended(berlin, tokyo).await;

    // wrong cluster: the address leads to a server that is trusted for another peer.
    let foreign = berlin
        .authority
        .sign(&berlin.authority.request("elsewhere"))
        .unwrap();
    let (elsewhere, serving) = server_showing(&foreign).await;
    let foreign_file = berlin.member().unwrap().folder.join("elsewhere.pem");
    std::fs::write(&foreign_file, &foreign.certificate_pem).unwrap();
    works_at(
        berlin,
        &format!("trust add oslo --pin {}", foreign_file.display()),
    )
    .await;
    works_at(berlin, &set_address(&elsewhere)).await;
    let next = refused_there(berlin, tokyo, Rejection::WrongCluster).await;
    works_at(
        berlin,
        &printed(&next, "cluster set", &[("HOST:PORT", &address)]),
    )
    .await;
    mended(berlin, tokyo).await;
    serving.cancel();

    // wrong EKU, in each direction: the daemons show none such themselves, so others do.
    let only_server = tokyo.authority.request("odd").with_usage(Usage::Server);
    let only_server = tokyo.authority.sign(&only_server).unwrap();
    pin(berlin, tokyo, &only_server).await;
    let mut caller = client_showing(&only_server, berlin);
    let refused = caller.hello(call(tokyo, hello(&peer))).await.unwrap_err();
    is_rejected(&refused, Rejection::WrongEku, &only_server);
    let hint = at_door(berlin, "caller", Rejection::WrongEku).await.hint;
    works_at(berlin, &printed(&hint, "cluster set", &[])).await;
    let mut caller = client_showing(&only_server, berlin);
    caller.hello(call(tokyo, hello(&peer))).await.unwrap();
    works_at(berlin, &format!("cluster set {peer} --ignore-eku false")).await;
    let only_client = tokyo.authority.request("odd").with_usage(Usage::Client);
    let only_client = tokyo.authority.sign(&only_client).unwrap();
    pin(berlin, tokyo, &only_client).await;
    let (odd, serving) = server_showing(&only_client).await;
    works_at(berlin, &set_address(&odd)).await;
    let next = refused_there(berlin, tokyo, Rejection::WrongEku).await;
    works_at(
        berlin,
        &printed(&next, &format!("cluster set {peer} --ignore-eku"), &[]),
    )
    .await;
    // It is accepted now, though it is no emccd.
    let told = type_at(berlin, &format!("trust explain {odd}")).await.out;
    assert!(told.contains(&format!("it identifies {peer}")), "{told}");
    works_at(berlin, &format!("cluster set {peer} --ignore-eku false")).await;
    works_at(berlin, &set_address(&address)).await;
    mended(berlin, tokyo).await;
    serving.cancel();

    // plaintext and TLS version, in each direction, and no client certificate: each names the action.
    let mut tcp = TcpStream::connect(&berlin.member().unwrap().addresses.federation)
        .await
        .unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(
        at_door(berlin, "caller", Rejection::Plaintext)
            .await
            .hint
            .contains("https")
    );
    assert!(shake(berlin, None, &TLS12).await.is_err());
    assert!(
        at_door(berlin, "caller", Rejection::TlsVersion)
            .await
            .hint
            .contains("TLS 1.3")
    );
    let stream = shake(berlin, None, &TLS13).await.unwrap();
    drop(stream);
    let hint = at_door(berlin, "caller", Rejection::NoClientCertificate)
        .await
        .hint;
    assert!(hint.contains("let the caller present"), "{hint}");
    let mut caller = client_showing_none(berlin);
    let refused = caller.hello(call(tokyo, hello(&peer))).await.unwrap_err();
    let told = rejection_from_status(&refused);
    assert_eq!(told, Some(Rejection::NoClientCertificate), "{refused:?}");
    for (rejection, (place, serving)) in [
        (
            Rejection::Plaintext,
            explain::answering(b"HTTP/1.1 400 Bad Request\r\n\r\n").await,
        ),
        (Rejection::TlsVersion, server_of(&other, &TLS12).await),
    ] {
        works_at(berlin, &set_address(&place)).await;
        let seen = rejected(berlin, tokyo, rejection).await;
        let line = printed(
            &seen.hint.unwrap(),
            "cluster set",
            &[("HOST:PORT", &address)],
        );
        works_at(berlin, &line).await;
        mended(berlin, tokyo).await;
        serving.cancel();
    }

    // Berlin's own certificate outlives what its clock goes through.
    let long = berlin
        .authority
        .request("node-1")
        .valid(days_from_now(-1), days_from_now(400));
    let long = berlin.authority.sign(&long).unwrap();
    pin(tokyo, berlin, &long).await;
    swap(berlin, &long).await.unwrap();
    linked(berlin, tokyo).await;
    // not yet valid, by berlin's clock, which is what is to be set.
    let clock = &berlin.member().unwrap().clock;
    clock.set_offset_millis(-DAY_MILLIS);
    let next = refused_there(berlin, tokyo, Rejection::NotYetValid).await;
    assert!(next.contains("timedatectl"), "{next}");
    at_door(berlin, "caller", Rejection::NotYetValid).await;
    let seen = rejected(tokyo, berlin, Rejection::NotYetValid).await;
    assert!(seen.reason.unwrap().contains("timedatectl"));
    let typed = type_at(tokyo, &format!("trust explain {}", berlin.id)).await;
    assert!(
        typed
            .out
            .contains("behind ours: compare both with timedatectl"),
        "{typed:?}"
    );
    clock.set_offset_millis(0);
    mended(berlin, tokyo).await;

    // expired, by berlin's clock.
    clock.set_offset_millis(181 * DAY_MILLIS);
    let next = refused_there(berlin, tokyo, Rejection::Expired).await;
    let theirs = rejected(tokyo, berlin, Rejection::Expired)
        .await
        .reason
        .unwrap();
    at_door(berlin, "caller", Rejection::Expired).await;
    at_door(tokyo, "own", Rejection::Expired).await;
    // What tokyo reads is typed there, and then what it says is to be typed at berlin.
    let new = printed(&theirs, "cert new", &[]);
    let names = "--name node-1.tokyo.test --name localhost --name 127.0.0.1";
    let line = format!("{new} --common-name {peer} {names} --out new");
    works_at(tokyo, &line).await;
    let install = printed(&theirs, "cert install", &[("FILE", "new.pem")]);
    works_at(tokyo, &install).await;
    works_at(berlin, &printed(&next, "trust add", &[("FILE", &file)])).await;
    mended(berlin, tokyo).await;
    clock.set_offset_millis(0);
    works(tokyo, berlin).await;
    lab.shut_down().await;
}
