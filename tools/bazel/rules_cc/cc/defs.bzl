"""The C++ rules that Bazel's own toolchains ask rules_cc for, as the ones built into Bazel before 7."""

cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
