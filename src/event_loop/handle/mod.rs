//! Handle and TimerHandle: what `call_soon` and `call_later` return, and what the ready queue holds.
//!
//! | file     | what it keeps                                                  |
//! |----------|----------------------------------------------------------------|
//! | `object` | the object: its fields, how it is made, called and used again  |
//! | `shown`  | how messages show a handle; the report of a callback's error   |
//! | `class`  | the Python types: methods, attributes, repr, order             |

mod class;
mod object;
mod shown;

pub use class::init;
pub(super) use object::is_timer;
pub use object::{Handle, HandleRef, cancel};
pub(super) use shown::{report, source_traceback};
