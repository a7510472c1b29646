"""The Java rules that Bazel's own toolchains ask rules_java for, as the ones built into Bazel before 7."""

java_binary = native.java_binary
java_import = native.java_import
java_library = native.java_library
java_proto_library = native.java_proto_library
java_runtime = native.java_runtime
java_toolchain = native.java_toolchain
