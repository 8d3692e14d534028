//! The inspector against `qemu-img info`, over files that `qemu-img` made, files made by hand, and damaged ones.

mod by_hand;
mod compare;
mod damage;
mod damaged;
mod qemu;
mod whole;
