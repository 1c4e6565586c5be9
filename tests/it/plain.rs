//! Phones that know no TLS: plain HTTP where the operator switched it on, and nowhere else.

use std::collections::BTreeSet;

use emccd::lab::{Hosting, Lab, Spec, member::Member, phone::Phone};

use crate::support::{binary, free_port_base, lab_of_processes, living};

/// The TCP ports on which a node's process listens.
fn listening(node: &Member) -> BTreeSet<u16> {
    let pid = node.pid().unwrap();
    let sockets: BTreeSet<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|to| {
            Some(
                to.to_str()?
                    .strip_prefix("socket:[")?
                    .trim_end_matches(']')
                    .to_owned(),
            )
        })
        .collect();
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        // Where there is no IPv6, there is no such table.
        let lines = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in lines.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            // Address, state (0A: it listens) and inode.
            if fields[3] == "0A" && sockets.contains(fields[9]) {
                let (_, port) = fields[1].rsplit_once(':').unwrap();
                ports.insert(u16::from_str_radix(port, 16).unwrap());
            }
        }
    }
    ports
}

fn port(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_without_tls_logs_in_and_out_where_plain_http_is_switched_on() {
    let plain = free_port_base() + 80;
    let spec = Spec {
        clusters: 1,
        hosting: Hosting::Processes { binary: binary() },
        settings: vec![(
            "phone".to_owned(),
            format!("plain-listen = \"127.0.0.1:{plain}\""),
        )],
        ..Spec::default()
    };
    let lab = Lab::start(&spec).await.unwrap();
    let cluster = &lab.clusters[0];
    let node = cluster.member().unwrap();
    assert!(listening(node).contains(&plain));
    let base = format!("http://127.0.0.1:{plain}");
    let phone = Phone::plain(&base).unwrap();
    let (user, device) = (
        cluster.data.user(0).unwrap(),
        &cluster.data.phone(0).unwrap().name,
    );
    // The answers go back the same way: the phone could not follow a link to HTTPS.
    let form = phone.login_form(device, None).await.unwrap();
    let target = form.url.as_deref().unwrap();
    assert!(target.starts_with(&format!("{base}/")), "{target}");
    let shown = phone
        .fill_in(&form, &[&user.user_id, &user.pin])
        .await
        .unwrap();
    assert_eq!(shown.headline(), "Login successful", "{}", shown.body);
    // The cluster is both home and visiting.
    assert_eq!(living(&lab, 0).await.len(), 2);
    let question = phone.login_form(device, None).await.unwrap();
    let yes = question.softkey("Yes").expect("a question");
    assert!(yes.starts_with(&format!("{base}/")), "{yes}");
    let shown = phone.press(&question, "Yes").await.unwrap();
    assert_eq!(shown.headline(), "Logout successful", "{}", shown.body);
    assert!(living(&lab, 0).await.is_empty());
    // The other port still is what it was.
    let form = node.phone().unwrap().login_form(device, None).await;
    let target = form.unwrap().url.unwrap();
    let secure = format!("{}/", node.addresses.phone);
    assert!(target.starts_with(&secure), "{target}");
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_off_unless_switched_on() {
    let lab = lab_of_processes(1).await;
    let node = lab.clusters[0].member().unwrap();
    let open = [
        &node.addresses.federation,
        &node.addresses.phone,
        &node.addresses.metrics,
    ];
    assert_eq!(listening(node), open.map(|address| port(address)).into());
    // And the port for phones with TLS serves nobody without.
    let device = &lab.clusters[0].data.phone(0).unwrap().name;
    let plain = Phone::plain(&node.addresses.phone.replacen("https", "http", 1)).unwrap();
    let shown = plain.login_form(device, None).await.unwrap();
    assert_eq!(
        (shown.status, shown.is_form()),
        (400, false),
        "{}",
        shown.body
    );
    lab.shut_down().await;
}
