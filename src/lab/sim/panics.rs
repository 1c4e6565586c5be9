//! Panics of tasks: a runtime catches them, and whoever waits for the task learns no more than that it is gone. In a
//! simulation nobody may.

use std::{cell::RefCell, panic, sync::Once};

thread_local! {
    // Of this thread: a simulated federation runs on one, whatever the other tests of the process do.
    static NOTED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Does something; with what has panicked meanwhile on this thread, caught or not.
pub(crate) fn noted<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // On its way out a thread has none any more.
            let _ = NOTED.try_with(|noted| {
                if let Ok(mut noted) = noted.try_borrow_mut()
                    && let Some(noted) = noted.as_mut()
                {
                    noted.push(info.to_string());
                }
            });
            before(info);
        }));
    });
    let _until = Until::begin();
    let result = work();
    let noted = NOTED.with_borrow_mut(Option::take);
    (result, noted.unwrap_or_default())
}

/// Ends the noting, also where the work itself panics.
struct Until;

impl Until {
    fn begin() -> Self {
        NOTED.set(Some(Vec::new()));
        Self
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        NOTED.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_panics_is_noted_and_one_on_another_thread_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let ((), noted) = noted(|| {
            runtime.block_on(async {
                let task = crate::tasks::Tasks::default();
                drop(task.spawn("a task", async { panic!("what was thought impossible") }));
                tokio::task::yield_now().await;
            });
            let elsewhere = std::thread::spawn(|| panic!("elsewhere"));
            elsewhere.join().unwrap_err();
        });
        assert_eq!(noted.len(), 1, "{noted:?}");
        assert!(
            noted[0].contains("what was thought impossible"),
            "{noted:?}"
        );
    }

    #[test]
    fn nothing_is_noted_where_nothing_panics_or_before() {
        std::panic::catch_unwind(|| noted(|| panic!("at once"))).unwrap_err();
        assert_eq!(noted(|| 7), (7, Vec::new()));
    }
}
