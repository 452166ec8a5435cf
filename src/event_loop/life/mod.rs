//! A loop's beginning and end: which thread it is bound to, its runs, forks and the interpreter's end.
//!
//! | file       | what it keeps                                                         |
//! |------------|-----------------------------------------------------------------------|
//! | `binding`  | which loop belongs to a thread; `get_running_loop`, `get_event_loop`  |
//! | `registry` | the process's live loops                                              |
//! | `run`      | `run_forever`: hooks, thread binding, signals around the turns        |
//! | `fork`     | what a forked child does with what it inherited                       |
//! | `exit`     | the interpreter's end                                                 |

pub mod binding;
pub mod exit;
pub mod fork;
pub mod registry;
pub(super) mod run;
