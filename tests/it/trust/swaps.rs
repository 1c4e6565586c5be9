//! Certificates swapped while everything runs.

use super::*;
use crate::support::tls::federation_client;

#[tokio::test]
async fn a_certificate_is_swapped_under_living_sessions_and_broken_files_change_nothing() {
    let lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let next = another(tokyo);
    pin(berlin, tokyo, &next).await;
    let shown = log_in(tokyo, 0, berlin).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    let reloaded = swap(tokyo, &next).await.unwrap();
    assert_eq!(
        fingerprint(&reloaded.identities[0]),
        next.fingerprint_text()
    );
    // Who calls from now on meets the new one, and the session goes on.
    peer_client(berlin, tokyo)
        .hello(call(berlin, hello("berlin")))
        .await
        .unwrap();
    log_out(berlin).await;
    linked(berlin, tokyo).await;
    assert!(living(&lab, 0).await.is_empty() && living(&lab, 1).await.is_empty());

    let member = tokyo.member().unwrap();
    let (certificate, key) = (&member.federation_certificate, &member.federation_key);
    let good = [
        std::fs::read(certificate).unwrap(),
        std::fs::read(key).unwrap(),
    ];
    let foreign = another(berlin);
    let expired = tokyo
        .authority
        .request("node-1")
        .valid(days_from_now(-9), days_from_now(-1));
    let expired = tokyo.authority.sign(&expired).unwrap();
    type Breaking<'a> = Box<dyn Fn() + 'a>;
    let open_to_all = || {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).unwrap();
    };
    let broken: [(&str, &[&str], Breaking<'_>); 7] = [
        (
            "no certificate",
            &["no certificate in it"],
            Box::new(|| std::fs::write(certificate, "nonsense").unwrap()),
        ),
        (
            "half of one",
            &["PEM"],
            Box::new(|| std::fs::write(certificate, &good[0][..200]).unwrap()),
        ),
        (
            "no file",
            &["can't read", "No such file"],
            Box::new(|| std::fs::remove_file(certificate).unwrap()),
        ),
        (
            "no key",
            &["no private key"],
            Box::new(|| std::fs::write(key, "nonsense").unwrap()),
        ),
        (
            "another key",
            &["does not belong to the certificate"],
            Box::new(|| std::fs::write(key, foreign.key_pem.expose()).unwrap()),
        ),
        ("an open key", &["chmod 600"], Box::new(open_to_all)),
        (
            "an expired one",
            &["expired", "valid from"],
            Box::new(|| member.install(&expired).unwrap()),
        ),
    ];
    for (what, words, break_it) in broken {
        break_it();
        let said = reload(tokyo).await.unwrap_err();
        for word in words.iter().chain(&["the last good one stays in force"]) {
            assert!(said.contains(word), "{what}: {word:?} in {said}");
        }
        assert!(
            !said.contains("BEGIN") && !said.contains("nonsense"),
            "{what}: {said}"
        );
        let identity = shown_by(tokyo).await;
        assert_eq!(fingerprint(&identity), next.fingerprint_text(), "{what}");
        assert!(
            identity
                .problem
                .is_some_and(|problem| said.contains(&problem)),
            "{what}: {said}"
        );
        peer_client_of_good(berlin, tokyo, &next).await;
        member.install(&next).unwrap();
    }
    works(tokyo, berlin).await;
    reload(tokyo).await.unwrap();
    assert_eq!(shown_by(tokyo).await.problem, None);
    lab.shut_down().await;
}

/// Whoever calls `them` meets that certificate.
async fn peer_client_of_good(us: &Cluster, them: &Cluster, expected: &Made) {
    // The files may be broken: what the node shows is looked at on the wire.
    let tcp = tokio::net::TcpStream::connect(&them.member().unwrap().addresses.federation)
        .await
        .unwrap();
    let config = federation_client(them, None, &[&rustls::version::TLS13]);
    let name = "localhost".try_into().unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap();
    let shown = tls.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    assert!(
        shown == expected.certificate_der,
        "{} meets another certificate of {}",
        us.id,
        them.id
    );
}

#[tokio::test]
async fn sighup_swaps_the_certificate_of_a_process_and_keeps_the_last_good_one() {
    let lab = support::lab_of_processes(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let member = tokyo.member().unwrap();
    let hang_up = || {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(member.pid().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    };
    let next = another(tokyo);
    pin(berlin, tokyo, &next).await;
    let shown = log_in(tokyo, 0, berlin).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    member.install(&next).unwrap();
    hang_up();
    wait_identity(tokyo, |identity| {
        fingerprint(identity) == next.fingerprint_text()
    })
    .await;
    peer_client_of_good(berlin, tokyo, &next).await;
    log_out(berlin).await;
    linked(berlin, tokyo).await;

    std::fs::write(&member.federation_certificate, "nonsense").unwrap();
    hang_up();
    let kept = wait_identity(tokyo, |identity| identity.problem.is_some()).await;
    assert_eq!(fingerprint(&kept), next.fingerprint_text());
    peer_client_of_good(berlin, tokyo, &next).await;
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;
    let log = std::fs::read_to_string(member.log_file()).unwrap();
    let told = log
        .lines()
        .find(|line| line.contains("reading again failed"));
    let told = told.unwrap_or_else(|| panic!("{log}"));
    assert!(
        told.contains("what was in force stays") && told.contains("certificate"),
        "{told}"
    );

    member.install(&next).unwrap();
    hang_up();
    wait_identity(tokyo, |identity| identity.problem.is_none()).await;
    lab.shut_down().await;
}

async fn wait_identity(cluster: &Cluster, wanted: impl Fn(&pb::Identity) -> bool) -> pb::Identity {
    support::until(
        Duration::from_secs(30),
        "it shows what it should",
        async || {
            let identity = shown_by(cluster).await;
            support::holds(wanted(&identity), &identity).map(|()| identity)
        },
    )
    .await
}
