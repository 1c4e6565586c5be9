//! The machine against a model of the peers: whatever happens in whichever order, nobody is locked out, and in the end
//! all agree.

mod table;
mod world;

use proptest::prelude::*;

use self::world::{Op, World};
use crate::domain::announcement::Acceptance;

fn op() -> impl Strategy<Value = Op> {
    let peer = 0..3_usize;
    prop_oneof![
        8 => (1..4_usize).prop_map(Op::Tick),
        2 => Just(Op::Announce),
        3 => Just(Op::Activate { overriding: false }),
        1 => Just(Op::Activate { overriding: true }),
        3 => Just(Op::Retire),
        1 => Just(Op::RollBack),
        1 => Just(Op::Crash),
        2 => peer.clone().prop_map(Op::Down),
        3 => peer.clone().prop_map(Op::Up),
        1 => peer.clone().prop_map(Op::Restart),
        1 => peer.clone().prop_map(Op::Lag),
        2 => peer.clone().prop_map(Op::CatchUp),
        1 => peer.clone().prop_map(Op::NodeJoins),
        1 => peer.clone().prop_map(Op::LoseAnswer),
        2 => (peer, any::<prop::sample::Index>()).prop_map(|(peer, which)| Op::Replay(peer, which)),
        3 => Just(Op::Drain),
        1 => Just(Op::Confirm),
    ]
}

/// The same, and what people do and what time does.
fn any_op() -> impl Strategy<Value = Op> {
    let peer = 0..4_usize;
    let takes = prop_oneof![
        Just(Acceptance::Auto),
        Just(Acceptance::Approve),
        Just(Acceptance::Off)
    ];
    prop_oneof![
        32 => op(),
        1 => any::<bool>().prop_map(|all| Op::Join { all }),
        1 => peer.clone().prop_map(Op::Remove),
        1 => peer.clone().prop_map(Op::PutBack),
        1 => peer.clone().prop_map(Op::Disable),
        1 => peer.clone().prop_map(Op::Enable),
        2 => (peer.clone(), takes).prop_map(|(peer, takes)| Op::Takes(peer, takes)),
        2 => peer.prop_map(Op::Agree),
        1 => Just(Op::OldEnds),
        1 => Just(Op::ClockBack),
        1 => Just(Op::Calendar),
        1 => any::<bool>().prop_map(|old| Op::LoseKey { old }),
        1 => any::<bool>().prop_map(|old| Op::Unreadable { old }),
        1 => Just(Op::Readable),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_locked_out_and_all_agree_in_the_end(
        ops in prop::collection::vec(any_op(), 1..60),
        automatic: bool,
    ) {
        let mut world = World::new(automatic);
        for op in ops {
            world.run(&op);
            world.check(&op);
        }
        world.come_to_rest();
    }

    #[test]
    fn a_database_from_before_is_caught_up_with(
        before in prop::collection::vec(op(), 0..30),
        between in prop::collection::vec(op(), 1..40),
        after in prop::collection::vec(op(), 0..10),
    ) {
        let mut world = World::new(false);
        for op in before {
            world.run(&op);
        }
        let saved = world.saved();
        for op in between {
            world.run(&op);
        }
        world.restore(saved);
        for op in after {
            world.run(&op);
        }
        world.come_to_rest();
    }
}

#[test]
fn two_hundred_rotations_leave_nothing_behind() {
    let mut world = World::new(true);
    for round in 0..200 {
        world.run(&Op::Announce);
        for _ in 0..40 {
            world.run(&Op::Confirm);
            world.run(&Op::Tick(8));
            world.run(&Op::Drain);
            world.check(&Op::Tick(8));
        }
        assert!(world.is_steady(), "round {round}: {world:?}");
        world.check_agreement();
    }
}
