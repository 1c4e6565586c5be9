//! A wrong identity, for peers or for phones, keeps nobody else from being served.

use super::*;

/// One way in which the files of the identity for peers can be wrong.
fn spoil(cluster: &Cluster, how: &str) {
    let node = cluster.member().unwrap();
    let key = fs::read(&node.federation_key).unwrap();
    match how {
        "readable" => drop(replace(&node.federation_key, &key, 0o644)),
        "missing" => fs::remove_file(&node.federation_key).unwrap(),
        "garbage" => drop(replace(&node.federation_certificate, b"garbage", 0o644)),
        "expired" => {
            let request = cluster
                .authority
                .request(&node.name)
                .valid(days_from_now(-20), days_from_now(-10));
            node.install(&cluster.authority.sign(&request).unwrap())
                .unwrap();
        }
        _ => {
            let other = cluster
                .authority
                .sign(&cluster.authority.request("other"))
                .unwrap();
            replace(&node.federation_key, other.key_pem.expose(), 0o600);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_identity_for_peers_all_else_is_served_until_it_is_mended() {
    let mut lab = lab(2).await;
    let tokyo = lab.clusters[1].id.clone();
    for (how, why) in [
        ("readable", "can be read by others (mode 0644)"),
        ("missing", "No such file"),
        ("garbage", "there is no certificate in it"),
        ("another's", "does not belong to the certificate"),
        ("expired", "expired"),
    ] {
        let node = lab.clusters[0].member().unwrap();
        let socket = node.addresses.admin.to_str().unwrap().to_owned();
        let files = [
            node.federation_certificate.clone(),
            node.federation_key.clone(),
        ];
        let good = files.clone().map(|file| fs::read(file).unwrap());
        lab.clusters[0].member_mut().unwrap().stop().await;
        spoil(&lab.clusters[0], how);
        lab.clusters[0]
            .member_mut()
            .unwrap()
            .start(&Versions::default())
            .await
            .unwrap();

        // Operators are served, and are told.
        let status = emccd(&["cluster", "status", "--socket", &socket]).await;
        let text = String::from_utf8(status.stdout).unwrap();
        let (_, down) = text
            .split_once("federation is down: ")
            .unwrap_or_else(|| panic!("{how}: {text}"));
        assert!(
            down.contains(why) && down.contains("federation.pem"),
            "{how}: {text}"
        );
        assert!(
            down.contains("next: mend the files") && down.contains("emccd cert reload"),
            "{how}: {text}"
        );
        let shown = emccd(&["cert", "show", "--socket", &socket]).await;
        assert!(
            String::from_utf8_lossy(&shown.stdout).contains(why),
            "{how}: {shown:?}"
        );
        let told = told(&emccd(&["cert", "reload", "--socket", &socket]).await);
        assert!(
            told.why.contains(why) && told.code == Some(1),
            "{how}: {told:?}"
        );

        // Phones are served: our own users log in, others are told that their home can't be reached.
        let local = log_in(&lab, 0, 1, 0, 1).await;
        assert_eq!(
            local.headline(),
            "Login successful",
            "{how}: {}",
            local.text
        );
        let berlin = &lab.clusters[0];
        log_out(berlin, 1).await;
        let foreign = log_in(&lab, 1, 0, 0, 1).await;
        assert!(
            matches!(foreign.em_code, Some(40 | 208)),
            "{how}: {foreign:?}"
        );

        for ((file, content), mode) in files.iter().zip(&good).zip([0o644, 0o600]) {
            replace(file, content, mode);
        }
        let reloaded = emccd(&["cert", "reload", "--socket", &socket]).await;
        assert!(
            reloaded.status.success(),
            "{how}: {}",
            String::from_utf8_lossy(&reloaded.stderr)
        );
        let status = berlin
            .admin()
            .await
            .unwrap()
            .status(pb::GetClusterStatusRequest {})
            .await
            .unwrap();
        assert_eq!(
            (&status.federation_down_reason, &status.federation_hint),
            (&None, &None),
            "{how}"
        );
        berlin.wait_linked(&tokyo).await.unwrap();
        let foreign = log_in(&lab, 1, 0, 0, 1).await;
        assert_eq!(
            foreign.headline(),
            "Login successful",
            "{how}: {}",
            foreign.text
        );
        let berlin = &lab.clusters[0];
        log_out(berlin, 1).await;
    }
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_identity_for_phones_peers_are_served_until_it_is_mended() {
    let mut lab = lab(2).await;
    let node = lab.clusters[0].member().unwrap();
    let socket = node.addresses.admin.to_str().unwrap().to_owned();
    let key = node.folder.join("phone.key");
    lab.clusters[0].member_mut().unwrap().stop().await;
    let good = replace(&key, b"garbage", 0o600);
    let berlin = &mut lab.clusters[0];
    let all = Versions::default();
    berlin.member_mut().unwrap().start(&all).await.unwrap();

    let why = "there is no private key in PEM in it";
    let shown = emccd(&["cert", "show", "--socket", &socket]).await;
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains(why),
        "{shown:?}"
    );
    let reload = told(&emccd(&["cert", "reload", "--socket", &socket]).await);
    assert!(reload.why.contains(why), "{reload:?}");
    let berlin = &lab.clusters[0];
    let phone = berlin.member().unwrap().phone().unwrap();
    let device = &berlin.data.phone(0).unwrap().name;
    assert!(phone.login_form(device, None).await.is_err());

    // Its users are at home all the same, for phones of other clusters.
    berlin.wait_linked(&lab.clusters[1].id).await.unwrap();
    let away = log_in(&lab, 0, 0, 1, 0).await;
    assert_eq!(away.headline(), "Login successful", "{}", away.text);

    replace(&key, &good, 0o600);
    let reloaded = emccd(&["cert", "reload", "--socket", &socket]).await;
    assert!(reloaded.status.success(), "{reloaded:?}");
    let here = log_in(&lab, 1, 0, 0, 0).await;
    assert_eq!(here.headline(), "Login successful", "{}", here.text);
    lab.shut_down().await;
}
