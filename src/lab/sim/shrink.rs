//! Finds the few steps of a plan that matter. Pure.

use super::plan::Plan;

/// A plan with as few steps of `plan` as still fail, found by leaving out ever smaller parts; `plan` itself must fail.
/// Each try is a whole run: at most `tries` of them.
pub(crate) fn shrink(plan: &Plan, tries: usize, fails: impl Fn(&Plan) -> bool) -> Plan {
    let (mut least, mut left) = (plan.clone(), tries);
    let mut size = least.steps.len().div_ceil(2);
    while size > 0 {
        let (mut from, mut is_less) = (0, false);
        while from < least.steps.len() {
            if left == 0 {
                return least;
            }
            left -= 1;
            let without = least.without(from, size);
            if fails(&without) {
                (least, is_less) = (without, true);
            } else {
                from += size;
            }
        }
        // One step may have been kept only for another that is gone now.
        if size > 1 || !is_less {
            size /= 2;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_matters_is_left_and_nothing_else() {
        let plan = Plan::of(3);
        let (one, other) = (
            plan.steps[4].clone(),
            plan.steps[plan.steps.len() - 3].clone(),
        );
        let fails = |plan: &Plan| plan.steps.contains(&one) && plan.steps.contains(&other);
        assert_eq!(
            shrink(&plan, 10_000, fails).steps,
            [one.clone(), other.clone()]
        );
    }

    #[test]
    fn it_ends_after_so_many_tries() {
        let (plan, tries) = (Plan::of(3), Cell::new(0));
        let less = shrink(&plan, 5, |_| {
            tries.set(tries.get() + 1);
            false
        });
        assert_eq!((less, tries.get()), (plan, 5));
    }
}
