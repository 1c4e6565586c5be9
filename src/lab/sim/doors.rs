//! Which nodes may be called: those whose doors are open. Pure.

use std::collections::BTreeMap;

use super::plan::{Cluster, Node};

/// What stands behind the doors of the nodes that run, and of those that start.
pub(crate) struct Doors<T> {
    /// By the number of the start: one that came too late may still be at it when the next begins.
    starting: BTreeMap<(Node, u64), T>,
    open: BTreeMap<Node, T>,
}

impl<T> Doors<T> {
    pub(crate) const fn new() -> Self {
        Self {
            starting: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }

    /// A start has come so far that there is something behind its door.
    pub(crate) fn starts(&mut self, node: Node, number: u64, behind: T) {
        self.starting.insert((node, number), behind);
    }

    /// The door of that start, which has come so far, is open.
    pub(crate) fn open(&mut self, node: Node, number: u64) {
        let behind = self.starting.remove(&(node, number));
        self.open.insert(node, behind.unwrap());
    }

    /// The start came to nothing.
    pub(crate) fn fails(&mut self, node: Node, number: u64) {
        self.starting.remove(&(node, number));
    }

    /// The node is gone, and whatever start of it is under way is too late.
    pub(crate) fn gone(&mut self, node: Node) {
        self.starting.retain(|(one, _), _| *one != node);
        self.open.remove(&node);
    }

    /// What stands behind open doors of a cluster.
    pub(crate) fn of(&self, cluster: Cluster) -> impl Iterator<Item = (Node, &T)> {
        let all = self.open.iter().map(|(node, behind)| (*node, behind));
        all.filter(move |(node, _)| node.cluster() == cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Node = Node(0, 0);
    const SIBLING: Node = Node(0, 1);

    fn open(doors: &Doors<char>) -> Vec<(Node, char)> {
        let all = doors.of(Cluster(0));
        all.map(|(node, behind)| (node, *behind)).collect()
    }

    #[test]
    fn only_an_open_door_leads_anywhere() {
        let mut doors = Doors::new();
        doors.starts(NODE, 1, 'a');
        doors.starts(SIBLING, 1, 'b');
        doors.starts(Node(1, 0), 1, 'c');
        assert_eq!(open(&doors), []);
        doors.open(NODE, 1);
        doors.open(Node(1, 0), 1);
        assert_eq!(open(&doors), [(NODE, 'a')]);
        doors.open(SIBLING, 1);
        doors.gone(NODE);
        assert_eq!(open(&doors), [(SIBLING, 'b')]);
    }

    #[test]
    fn a_start_that_comes_too_late_takes_nothing_from_the_next() {
        for late_first in [false, true] {
            let mut doors = Doors::new();
            doors.starts(NODE, 1, 'a');
            doors.gone(NODE);
            // It has not heard of it, and comes as far once more.
            doors.starts(NODE, 1, 'a');
            doors.starts(NODE, 2, 'b');
            if late_first {
                doors.fails(NODE, 1);
                doors.open(NODE, 2);
            } else {
                doors.open(NODE, 2);
                doors.fails(NODE, 1);
            }
            assert_eq!(open(&doors), [(NODE, 'b')]);
            assert!(doors.starting.is_empty());
        }
    }
}
