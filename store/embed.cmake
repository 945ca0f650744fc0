# cmake -DOUTPUT=file.c -DSOURCES="schema.sql;migrations/0002_x.sql" -P embed.cmake
# Writes each SQL file as bytes (a string literal would pass the length that C17 5.2.4.1 promises) and a table of them:
# the first file is version 1, each further one the next.
set(entries "")
set(arrays "")
set(version 0)
foreach(source IN LISTS SOURCES)
    math(EXPR version "${version} + 1")
    file(READ ${source} bytes HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
    string(APPEND arrays "static const char sql_${version}[] = {${bytes}0};\n")
    string(APPEND entries "    sql_${version},\n")
endforeach()
file(WRITE ${OUTPUT} "/* Generated from store/schema.sql and store/migrations. */\n#include \"store/migrate.h\"\n\n${arrays}
static const char *const versions[] = {\n${entries}};
const struct migrate_list migrate_embedded = {versions, ${version}};\n")
