# The C reader of ONNX files is generated into the build tree from Debian's onnx.proto (libonnx-dev) by protoc-c.
# Generated code does not follow our warnings, so it is a library of its own.
find_program(PROTOC_C protoc-c REQUIRED)
find_path(ONNX_PROTO_FOLDER onnx/onnx.proto REQUIRED)
set(onnx_generated ${CMAKE_BINARY_DIR}/generated/onnx)
add_custom_command(
    OUTPUT ${onnx_generated}/onnx.pb-c.c ${onnx_generated}/onnx.pb-c.h
    COMMAND ${CMAKE_COMMAND} -E make_directory ${onnx_generated}
    COMMAND ${PROTOC_C} --proto_path=${ONNX_PROTO_FOLDER}/onnx --c_out=${onnx_generated} onnx.proto
    DEPENDS ${ONNX_PROTO_FOLDER}/onnx/onnx.proto
    VERBATIM)
add_library(pulmo_onnx_proto STATIC ${onnx_generated}/onnx.pb-c.c ${onnx_generated}/onnx.pb-c.h)
target_compile_options(pulmo_onnx_proto PRIVATE -w)
target_include_directories(pulmo_onnx_proto SYSTEM PUBLIC ${onnx_generated})
target_link_libraries(pulmo_onnx_proto PUBLIC PkgConfig::PROTOBUF_C)
