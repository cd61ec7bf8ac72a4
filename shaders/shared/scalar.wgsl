// The number type of kernels that exist for reals and for integers: the dispatch puts i32 or u32 here.
alias Scalar = f32;
