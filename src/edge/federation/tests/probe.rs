//! What is found at an address, by whoever looks: whatever fails, there is something to type.

use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::rig::Node;
use crate::{
    domain::rejection::Rejection,
    peer::probe::Prober,
    trust::{
        explain::Part,
        fixtures::{cluster, pinned},
    },
};

async fn look(from: &Node, address: &str) -> Part {
    let prober = Prober {
        config: from.peers.config().clone(),
        trust: from.trust.clone(),
        clock: from.trust.clock().clone(),
    };
    let berlin = cluster("berlin");
    let part = prober
        .look(&address.parse().unwrap(), Some(&berlin))
        .await
        .part;
    assert_eq!(part.holds(), part.mend.is_none(), "{part:#?}");
    part
}

/// What takes connections, and does that with them.
async fn answering(node: &Node, bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let token = node.tasks.token();
    node.tasks.spawn("answering", async move {
        while let Some(Ok((mut tcp, _))) = token.run_until_cancelled(listener.accept()).await {
            drop(tcp.write_all(bytes).await);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_at_an_address_there_is_something_to_type() {
    let (tokyo, berlin) = (Node::new("tokyo").await, Node::new("berlin").await);
    tokyo.trusts(&[&berlin]);
    berlin.trusts(&[&tokyo]);
    berlin
        .peers
        .set(vec![super::rig::record(&tokyo.id, tokyo.address)]);
    berlin.serve().await;
    let found = look(&tokyo, &berlin.address.to_string()).await;
    assert!(found.holds(), "{found:#?}");

    // It is trusted for berlin, and says that it is munich.
    let munich = Node::new("munich").await;
    munich.trusts(&[&tokyo]);
    munich
        .peers
        .set(vec![super::rig::record(&tokyo.id, tokyo.address)]);
    munich.serve().await;
    let bundle = pinned("berlin", &munich.leaf);
    tokyo.trust.publish_bundles(vec![bundle]).unwrap();
    let found = look(&tokyo, &munich.address.to_string()).await;
    assert_eq!(found.rejection(), Some(Rejection::WrongCluster));
    assert!(
        found
            .mend
            .unwrap()
            .contains("emccd cluster set berlin --address"),
    );

    // It does not know us, a stranger, nothing at all, and what is no emccd.
    munich.trusts(&[]);
    let found = look(&tokyo, &munich.address.to_string()).await;
    assert_eq!(found.rejection(), Some(Rejection::UnknownIssuer));
    assert!(found.mend.unwrap().contains("mend on berlin"));
    let found = look(&tokyo, &berlin.address.to_string()).await;
    assert_eq!(found.rejection(), Some(Rejection::UnknownIssuer));
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
        let place = answering(&tokyo, bytes).await;
        assert!(!look(&tokyo, &place).await.holds());
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = closed.local_addr().unwrap().to_string();
    drop(closed);
    assert!(!look(&tokyo, &place).await.holds());
    assert!(!look(&tokyo, "nobody.invalid:8444").await.holds());
}
