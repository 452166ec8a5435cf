//! Native `Future` and `Task`: subclasses of asyncio's, with state of their own behind the base's unused fields.
//!
//! Each floor imports only those above it in this list (`tests/house/test_task_floors.py` keeps it):
//!
//! | room          | what lives there                                                            |
//! |---------------|-----------------------------------------------------------------------------|
//! | `fields`      | the state of futures and tasks, and its place in their objects              |
//! | `registry`    | a loop's lock over its futures, the list of its tasks, the one that runs    |
//! | `foreign`     | calls from other threads that are routed or refused                         |
//! | `wakeup`      | a task's step onto the queue, and as a Python callable                      |
//! | `waiting`     | callbacks, and the tasks among them                                         |
//! | `future`      | how futures end, and what they then give                                    |
//! | `cancel`      | cancellation of futures and tasks                                           |
//! | `theirs`      | running tasks of asyncio's own types                                        |
//! | `wait`        | what a task does with what its coroutine yields                             |
//! | `step`        | one step of a task's coroutine                                              |
//! | `eager`       | a first step that is made at once                                           |
//! | `create`      | `create_future`, `create_task` and the types' `__init__`                    |
//! | `iter`        | what `await` sees                                                           |
//! | `unseen`      | exceptions that were never retrieved, in garbage                            |
//! | `life`        | life of the objects: allocation, collection, finalisers                     |
//! | `outside`     | what the rooms above use: coroutines run for others, futures to wait for    |
//! | `future_type`, `task_type` | the Python faces                                               |
//! | `asyncio`     | asyncio's own `current_task` and `all_tasks` answer for our loops           |
//!
//! # Which thread may touch what
//!
//! A future belongs to its loop. What touches one shows a proof (`sync/held.rs`):
//!
//! - **`Change`**: the loop's claim (`Shared::claim`: its thread while it runs) *and* the owner's side of the loop's
//!   [`BiasedLock`](crate::sync::biased::BiasedLock) are held: [`EventLoop::with_tasks`]. Any other thread is refused, or its call goes
//!   through the inbox.
//! - **`Look`**: one side of the lock is held, by any thread: [`EventLoop::look_at_tasks`]. It takes references under it, and uses them
//!   afterwards. It may also take out what a caller gets once (the traceback of an exception), set a task's name, and link and unlink tasks.
//! - **`Mine`**: the loop's thread reads without the lock: [`EventLoop::read_mine`].
//! - **`Sole`**: no other thread reaches the object: it has no loop yet, or no reference.
//!
//! The state and marks of a future are one atomic word, `proto/task.rs`, which any thread may read without a proof.
//!
//! Nothing under the lock calls Python or drops a reference.
//!
//! A task waits for a native future by standing in its list of callbacks, with no context: that reference moves to the
//! ready queue when the future is done, and from there back into a future or onto the queue. So a step costs no
//! reference counting and makes no object.

mod asyncio;
mod cancel;
mod create;
mod eager;
mod fields;
mod foreign;
mod future;
mod future_type;
mod iter;
mod life;
pub mod outside;
pub mod registry;
pub(super) mod step;
mod task_type;
mod theirs;
mod unseen;
mod wait;
mod waiting;
mod wakeup;

use pyo3::prelude::*;

use crate::py::imports;
use fields::{FUTURE, TASK};

pub use create::{add_methods, create_future};
pub use outside::{give_back, is_cancelled, is_done, renewed_future, wake};

/// Makes the types and adds them to the module.
pub fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    FUTURE.init_and_add(module, future_type::spec(), Some(imports::asyncio_future(module.py())?))?;
    TASK.init_and_add(module, task_type::spec(), Some(imports::asyncio_task(module.py())?))?;
    // Looked up now. Hot paths, which pyo3 does not know to be attached, must not come to drop what another thread was first to
    // keep; and what reports need must be there when the interpreter ends and imports no more.
    for look_up in [
        imports::invalid_state_error,
        imports::cancelled_error,
        imports::iscoroutine,
        imports::future_repr,
        imports::task_repr,
    ] {
        look_up(module.py())?;
    }
    iter::init(module)?;
    step::init();
    asyncio::init(module)
}
