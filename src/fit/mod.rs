//! One layer problem: build, targets, solve (box, grid), certify.
