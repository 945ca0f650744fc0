# The SQL of the store as a C file in the build tree. Included by the root after pulmo_module(store).
file(GLOB store_migrations CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/store/migrations/*.sql)
list(SORT store_migrations)
set(store_sql ${CMAKE_CURRENT_SOURCE_DIR}/store/schema.sql ${store_migrations})
set(store_schema_c ${CMAKE_BINARY_DIR}/store/schema.c)
add_custom_command(OUTPUT ${store_schema_c}
    COMMAND ${CMAKE_COMMAND} "-DOUTPUT=${store_schema_c}" "-DSOURCES=${store_sql}"
            -P ${CMAKE_CURRENT_SOURCE_DIR}/store/embed.cmake
    DEPENDS ${store_sql} ${CMAKE_CURRENT_SOURCE_DIR}/store/embed.cmake
    COMMENT "Embedding the store's SQL" VERBATIM)
target_sources(pulmo_store PRIVATE ${store_schema_c})
