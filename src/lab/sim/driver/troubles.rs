//! What breaks, and is mended.

use super::*;
use crate::store::inline::Trouble;

impl World {
    /// What breaks, until it is mended. Where two steps break one thing, it is whole when the last of them is over.
    pub(super) async fn disturb(&self, what: &What) {
        let net = &self.0.net;
        match what {
            What::Cut {
                from,
                to,
                how,
                both,
                whole,
                ..
            } => {
                let mut cuts = Vec::new();
                for (one, other) in pairs(*from, *to, *whole) {
                    cuts.push(net.cut(one.host(), other.host(), *how));
                    if *both {
                        cuts.push(net.cut(other.host(), one.host(), *how));
                    }
                }
                self.pass(what).await;
                cuts.into_iter().for_each(|cut| net.mend(cut));
            }
            What::Kill { a, b } => net.kill(a.host(), b.host()),
            What::Crash { node, .. } => {
                self.crash(*node);
                self.pass(what).await;
                self.revive(*node);
            }
            What::Clock { node, offset_ms } => {
                let skew = self.0.plan.settings.skew_ms[node.place()];
                self.0.clocks[node].set_offset_millis(skew + offset_ms);
            }
            _ => {
                let number = {
                    let mut state = self.state();
                    state.next += 1;
                    let number = state.next;
                    state.broken.push((number, what.clone()));
                    number
                };
                self.set(what);
                self.pass(what).await;
                self.state().broken.retain(|(one, _)| *one != number);
                self.set(what);
            }
        }
    }

    /// Sets what a step has broken or mended as all that is broken now would have it; the latest wins.
    fn set(&self, what: &What) {
        let (net, broken) = (&self.0.net, self.state().broken.clone());
        let mut latest = broken.iter().rev().map(|(_, what)| what);
        match what {
            What::Refuse { node, .. } => {
                let refuses = latest
                    .any(|what| matches!(what, What::Refuse { node: one, .. } if one == node));
                net.refuse(node.host(), refuses);
            }
            What::Latency { .. } => {
                let (least, most) = self.0.plan.settings.latency_ms;
                let now = latest.find_map(|what| match what {
                    What::Latency { most_ms, .. } => Some((1, *most_ms)),
                    _ => None,
                });
                let (least, most) = now.unwrap_or((least, most));
                net.set_latency(least, most);
            }
            What::Mischief { .. } => {
                let now = latest.find_map(|what| match what {
                    What::Mischief { repeat, delay, .. } => Some((*repeat, *delay)),
                    _ => None,
                });
                let (repeat, delay) = now.unwrap_or_default();
                self.0.tap.set(repeat, delay);
            }
            What::Pause { node, .. } => {
                let is_held =
                    latest.any(|what| matches!(what, What::Pause { node: one, .. } if one == node));
                net.hold(node.host(), is_held);
                if let Some(bare) = self.running(*node) {
                    bare.hold(is_held);
                }
            }
            What::Disk { cluster, .. } => {
                let now = latest.find_map(|what| match what {
                    What::Disk {
                        cluster: one,
                        trouble,
                        ..
                    } if one == cluster => Some(*trouble),
                    _ => None,
                });
                self.disk(*cluster)
                    .set_trouble(now.unwrap_or(Trouble::None));
            }
            _ => panic!("{what:?} breaks nothing"),
        }
    }
}

/// The two nodes, or all of their clusters.
fn pairs(from: Node, to: Node, whole: bool) -> Vec<(Node, Node)> {
    if !whole {
        return vec![(from, to)];
    }
    let all = from.cluster().nodes();
    all.flat_map(|one| to.cluster().nodes().map(move |other| (one, other)))
        .collect()
}
