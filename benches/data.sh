# Arguments of `synfit convert` for the networks of the shared data, sourced by the scripts beside this one; $data is its
# folder.
networks=$data/networks
# 2000 test images each.
mnist=(--calibration "$data/mnist/train-images-idx3-ubyte.gz"
    --test "$data/mnist/t10k-images-idx3-ubyte.gz" --labels "$data/mnist/t10k-labels-idx1-ubyte.gz" --test-every 5
    --scale 0.00392156862745098)
cifar=(--calibration "$data/cifar10/train2000_images.npy" --images 256
    --test "$data/cifar10/test2000_images.npy" --labels "$data/cifar10/test2000_labels.npy" --test-images 500)
resnet20=("${cifar[@]}" --scale 0.00392156862745098 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225)
acasxu=(--calibration uniform:-0.5..0.5 --test-images 2000 --decision argmin)
# The tasks' ranges. Position, velocity, angle, angular velocity of the pole; position, velocity, angle, angular velocity
# and legs' contact of the lander.
cartpole=(--calibration uniform:-4.8..4.8,-3..3,-0.418..0.418,-3.5..3.5 --test-images 2000)
lunarlander=(--calibration uniform:-1.5..1.5,-1.5..1.5,-5..5,-5..5,-3.1416..3.1416,-5..5,0..1,0..1 --test-images 2000)
