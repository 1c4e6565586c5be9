//! Identities of one direction each: where an authority signs for servers or for clients and never for both.

use super::{typed::works_at, *};

/// Gives a node's first identity and the one for calling peers, and has it read them.
async fn show(cluster: &Cluster, server: &Made, client: &Made) -> Result<(), String> {
    let member = cluster.member().unwrap();
    member.install(server).unwrap();
    let folder = member.config.parent().unwrap();
    let pem = &client.certificate_pem;
    make::replace(&folder.join("client.pem"), pem.as_bytes(), 0o644).unwrap();
    let key = client.key_pem.expose();
    make::replace(&folder.join("client.key"), key, 0o600).unwrap();
    reload(cluster).await.map(drop)
}

/// A certificate of the cluster's authority for one direction.
fn one_way(cluster: &Cluster, usage: Usage) -> Made {
    let node = &cluster.member().unwrap().name;
    let request = cluster.authority.request(node).with_usage(usage);
    cluster.authority.sign(&request).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_signs_for_one_direction_only_does_with_an_identity_for_each() {
    let settings = [
        ("identity.client", "certificate = \"client.pem\""),
        ("identity.client", "key = \"client.key\""),
    ];
    let lab = strangers(2, &settings).await;
    let [tokyo, berlin] = &*lab.clusters else {
        panic!("two clusters")
    };
    // Without files for calling the node runs, and says what is missing.
    let mut admin = tokyo.admin().await.unwrap();
    let status = admin.status(pb::GetClusterStatusRequest {}).await.unwrap();
    let down = status.federation_down_reason.unwrap();
    assert!(down.contains("client.pem"), "{down}");

    let mut shown = Vec::new();
    for cluster in [tokyo, berlin] {
        let (server, client) = (
            one_way(cluster, Usage::Server),
            one_way(cluster, Usage::Client),
        );
        let swapped = show(cluster, &client, &server).await.unwrap_err();
        assert!(
            swapped.contains("the federation-client identity"),
            "{swapped}"
        );
        show(cluster, &server, &client).await.unwrap();
        shown.push((server, client));
    }
    for (us, them, theirs) in [(tokyo, berlin, &shown[1]), (berlin, tokyo, &shown[0])] {
        let pems = format!("{}{}", theirs.0.certificate_pem, theirs.1.certificate_pem);
        let address = them.member().unwrap().addresses.federation.clone();
        let peer = record(them.id.as_str(), vec![address], &[]);
        add(us, peer, "pinned", &pems).await.unwrap();
    }
    for (us, them, ours) in [(tokyo, berlin, &shown[0]), (berlin, tokyo, &shown[1])] {
        us.wait_linked(&them.id).await.unwrap();
        let mut admin = us.admin().await.unwrap();
        let identities = admin.identities(pb::ListIdentitiesRequest {}).await;
        let identities = identities.unwrap().identities;
        let told: Vec<_> = identities
            .iter()
            .map(|i| (&*i.purpose, fingerprint(i).to_owned()))
            .collect();
        assert_eq!(
            told[..2],
            [
                ("federation", ours.0.fingerprint_text()),
                ("federation-client", ours.1.fingerprint_text()),
            ]
        );
    }
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_both_have_ended_the_first_new_one_waits_for_the_second() {
    let settings = [
        ("identity.client", "certificate = \"client.pem\""),
        ("identity.client", "key = \"client.key\""),
    ];
    let mut lab = strangers(1, &settings).await;
    let berlin = &lab.clusters[0];
    let now = emccd::clock::Clock::system().now();
    let day = std::time::Duration::from_secs(86_400);
    let [server, client] = [Usage::Server, Usage::Client].map(|usage| {
        let node = &berlin.member().unwrap().name;
        let asked = berlin.authority.request(node).with_usage(usage);
        let ended = asked.valid(now.minus(9 * day), now.minus(day));
        berlin.authority.sign(&ended).unwrap()
    });
    show(berlin, &server, &client).await.unwrap_err();
    // Started anew, it has nothing to show.
    restart(&mut lab.clusters[0]).await;
    let berlin = &lab.clusters[0];
    let node = berlin.member().unwrap();
    let named = format!("{}.{}.test", node.name, berlin.id);
    let names = format!("--common-name berlin --name localhost --name 127.0.0.1 --name {named}");
    for (purpose, said) in [
        ("federation", "as soon as the other one is mended"),
        ("federation-client", "in use from now on"),
    ] {
        let line = format!("cert new --purpose {purpose} {names} --out {purpose}-new");
        works_at(berlin, &line).await;
        let line = format!("cert install {purpose}-new.pem --purpose {purpose} --now");
        let told = works_at(berlin, &line).await;
        assert!(told.contains(said), "{told}");
    }
    let mut admin = berlin.admin().await.unwrap();
    let identities = admin.identities(pb::ListIdentitiesRequest {}).await;
    for identity in identities.unwrap().identities {
        let shown = fingerprint(&identity);
        let is_old =
            [server.fingerprint_text(), client.fingerprint_text()].contains(&shown.to_owned());
        assert!(!is_old, "{}", identity.purpose);
    }
    lab.shut_down().await;
}
