/* strcpy(a, b) in a comment is no call, nor is "system(x)" in a string, nor a member or a longer name. */
int store_text(const char *text) {
    const char *example = "system(x)";
    table->system(example);
    my_strcpy(text);
    return atoi(text); /* lint: allow atoi: the sample of the escape */
}
