int store_tabs(void)
{
	return 0;
}
