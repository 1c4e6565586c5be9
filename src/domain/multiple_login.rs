//! What becomes of a user's earlier sessions when they log in once more. Pure.

use crate::domain::parameters::{MultipleLoginBehavior, WhenUnreachable};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The earlier sessions end, and the new one begins.
    End,
    /// They stay, and the new one begins.
    Leave,
    /// They stay, and the new one is refused.
    Refuse,
}

/// Decides over all earlier sessions of one user at once; `linked` says of each whether its cluster can be told of
/// its end now.
///
/// What can't be told matters only where an earlier session would end: a policy of one phone is not to be had round
/// by cutting a cluster off.
#[must_use]
pub fn judge(
    behavior: MultipleLoginBehavior,
    unreachable: WhenUnreachable,
    linked: impl IntoIterator<Item = bool>,
) -> Verdict {
    let mut linked = linked.into_iter().peekable();
    if linked.peek().is_none() {
        return Verdict::Leave;
    }
    match (behavior, unreachable) {
        (MultipleLoginBehavior::Allowed, _) => Verdict::Leave,
        (MultipleLoginBehavior::NotAllowed, _) => Verdict::Refuse,
        (MultipleLoginBehavior::AutoLogout, WhenUnreachable::TakeOver) => Verdict::End,
        (MultipleLoginBehavior::AutoLogout, WhenUnreachable::Refuse) => {
            if linked.all(|is_linked| is_linked) {
                Verdict::End
            } else {
                Verdict::Refuse
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_behaviour_with_every_state_of_the_earlier_clusters() {
        use MultipleLoginBehavior::{Allowed, AutoLogout, NotAllowed};
        use Verdict::{End, Leave, Refuse};
        let (linked, cut, mixed) = (&[true][..], &[false][..], &[true, false][..]);
        for (behavior, unreachable, earlier, expected) in [
            (Allowed, WhenUnreachable::TakeOver, linked, Leave),
            (Allowed, WhenUnreachable::Refuse, cut, Leave),
            (NotAllowed, WhenUnreachable::TakeOver, linked, Refuse),
            (NotAllowed, WhenUnreachable::TakeOver, cut, Refuse),
            (NotAllowed, WhenUnreachable::Refuse, cut, Refuse),
            (AutoLogout, WhenUnreachable::TakeOver, linked, End),
            (AutoLogout, WhenUnreachable::TakeOver, cut, End),
            (AutoLogout, WhenUnreachable::TakeOver, mixed, End),
            (AutoLogout, WhenUnreachable::Refuse, linked, End),
            (AutoLogout, WhenUnreachable::Refuse, cut, Refuse),
            (AutoLogout, WhenUnreachable::Refuse, mixed, Refuse),
        ] {
            let verdict = judge(behavior, unreachable, earlier.iter().copied());
            assert_eq!(
                verdict, expected,
                "{behavior:?} {unreachable:?} {earlier:?}"
            );
            assert_eq!(judge(behavior, unreachable, []), Leave, "the only session");
        }
    }
}
